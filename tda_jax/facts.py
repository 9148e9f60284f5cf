"""What is told of each row of a corpus by one reading of it, so that no check reads it again."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Num

from tda_jax import fingerprint

_FEW = 16  # rows


class Facts(NamedTuple):
    """Of each row, in the order of the corpus.

    Attributes:
        prints: sha256, as bytes of hexadecimal, of its id, its side and its arrays.
        latents: likewise, of its latent alone.
        moments: how many values of its latent are valid, their sum and that of their squares.
        levels: its valid frames, and its latent's root mean square over them.
    """

    prints: np.ndarray
    latents: np.ndarray
    moments: Float64[np.ndarray, "n 3"]
    levels: Float64[np.ndarray, "n 2"]


def digests(arrays: Sequence[np.ndarray]) -> list[list[str]]:
    """Of each array the sha256 of each row."""
    return [[fingerprint.of_array(row) for row in array] for array in arrays]


def prints(
    ids: Sequence[str], members: Bool[np.ndarray, " n"], rows: Sequence[Sequence[str]]
) -> list[str]:
    """One sha256 a row over its id, whether it is a member, and what `digests` gives of arrays."""
    return [fingerprint.of_text(*told) for told in zip(ids, map(str, members), *rows, strict=True)]


def moments(
    latent: Num[np.ndarray, "n frames ..."], mask: Num[np.ndarray, "n frames"]
) -> Float64[np.ndarray, "n 3"]:
    """Of each latent how many values are valid, their sum and that of their squares."""
    return _by_few(_moments, latent, mask)


def _moments(latent: np.ndarray, mask: np.ndarray) -> np.ndarray:
    x, valid = np.asarray(latent, np.float64).reshape(*latent.shape[:2], -1), mask > 0
    sums = [(p * valid[..., None]).sum(axis=(1, 2)) for p in (x, x * x)]
    return np.stack([valid.sum(axis=1) * x.shape[2], *sums], axis=1)


def levels(
    latent: Num[np.ndarray, "n frames ..."], mask: Num[np.ndarray, "n frames"]
) -> Float64[np.ndarray, "n 2"]:
    """Valid frames of each latent, and its root mean square over them."""
    return _by_few(_levels, latent, mask)


def _by_few(compute: Callable[..., np.ndarray], *arrays: np.ndarray) -> np.ndarray:
    """Some rows at a time, as float64 takes twice the memory, and several times."""
    parts = range(0, len(arrays[0]), _FEW)
    return np.concatenate([compute(*(x[i : i + _FEW] for x in arrays)) for i in parts])


def _levels(latent: np.ndarray, mask: np.ndarray) -> np.ndarray:
    power, mask = np.square(np.asarray(latent, np.float64)), np.asarray(mask, np.float64)
    by_frame, frames = power.reshape(*power.shape[:2], -1).mean(axis=2), mask.sum(axis=1)
    return np.stack([frames, np.sqrt((mask * by_frame).sum(axis=1) / frames)], axis=1)


def faults(mask: Num[np.ndarray, "n frames"], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Of each row: its mask keeps no frame, or leaves 0 .. 1; each array is not finite."""
    empty, outside = ~(mask > 0).any(axis=1), ((mask < 0) | (mask > 1)).any(axis=1)
    return np.stack([empty, outside, *map(_not_finite, arrays)], axis=1)


def _not_finite(rows: np.ndarray) -> np.ndarray:
    if not jnp.issubdtype(rows.dtype, jnp.inexact):  # knows bfloat16, as numpy does not
        return np.zeros(len(rows), bool)
    return ~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
