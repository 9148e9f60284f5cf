"""What is told of each row of a corpus by one reading of it, so that no check reads it again."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Num

from tda_jax import fingerprint

_FEW = 4  # rows


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


def moments_and_levels(
    latent: Num[np.ndarray, "n frames ..."], mask: Num[np.ndarray, "n frames"]
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 2"]]:
    """Of each latent what `Facts.moments` and `Facts.levels` are; of the latter the mask weighs."""
    total, squares = (np.empty(latent.shape[:2]) for _ in range(2))
    for start in range(0, len(latent), _FEW):  # float64 takes twice the memory
        some = slice(start, start + _FEW)
        x = np.asarray(latent[some], np.float64).reshape(*latent[some].shape[:2], -1)
        total[some], squares[some] = x.sum(axis=2), np.einsum("nfx,nfx->nf", x, x)
    values = math.prod(latent.shape[2:])
    valid, weight = mask > 0, np.asarray(mask, np.float64)
    counts = [
        valid.sum(axis=1) * values,
        (valid * total).sum(axis=1),
        (valid * squares).sum(axis=1),
    ]
    frames = weight.sum(axis=1)
    level = np.sqrt((weight * squares).sum(axis=1) / values / frames)
    return np.stack(counts, axis=1), np.stack([frames, level], axis=1)


def faults(mask: Num[np.ndarray, "n frames"], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Of each row: its mask keeps no frame, or leaves 0 .. 1; each array is not finite."""
    empty, outside = ~(mask > 0).any(axis=1), ((mask < 0) | (mask > 1)).any(axis=1)
    return np.stack([empty, outside, *map(_not_finite, arrays)], axis=1)


def _not_finite(rows: np.ndarray) -> np.ndarray:
    if not jnp.issubdtype(rows.dtype, jnp.inexact):  # knows bfloat16, as numpy does not
        return np.zeros(len(rows), bool)
    return ~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
