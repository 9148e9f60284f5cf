"""Rows of work: one track with some of its draws, and how draws are laid out in rows.

All draws of a row share the track's latent and condition un-batched, so what depends on the track
alone (the text's keys and values, for one) is computed once for a row and not once for a draw.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, UInt32

from tda_jax import keys
from tda_jax.attribution.contract import Model, Terms
from tda_jax.errors import InputError
from tda_jax.examples import Example


class Row(NamedTuple):
    """One track and some of its draws.

    Attributes:
        example: the track.
        words: the hash of its id, `keys.track_words`.
        draws: indices of draws.
    """

    example: Example
    words: UInt32[Array, " 2"]
    draws: Int[Array, " k"]


class Layout(NamedTuple):
    """How the draws of many tracks lie in rows: `per_row` draws in each, `rows` at a time."""

    per_row: int
    rows: int


def layout(draws: int, batch: int) -> Layout:
    """Lays out draws so that a device holds at most `batch` (track, draw) pairs at a time.

    As many draws of one track as fit share a row; the number divides `draws`, so rows are full.

    Raises:
        InputError: the batch is below 1.
    """
    if batch < 1:
        raise InputError(f"batch = {batch}; give (track, draw) pairs on one device, 1 at least")
    per_row = max(k for k in range(1, min(draws, batch) + 1) if draws % k == 0)
    return Layout(per_row, max(1, batch // per_row))


def rows_of(
    examples: Example, words: UInt32[np.ndarray, "n 2"], draws: int, per_row: int
) -> Callable[[np.ndarray], Row]:
    """Rows by position: the draws 0 .. draws-1 of track 0, then of track 1, and so on."""
    blocks = np.arange(draws, dtype=np.int32).reshape(-1, per_row)

    def rows(positions: np.ndarray) -> Row:
        track, block = np.divmod(positions, len(blocks))
        return Row(jax.tree.map(lambda x: x[track], examples), words[track], blocks[block])

    return rows


def terms_of_draw(
    model: Model, strata: int, params: Any, root: keys.Root, row: Row, draw: Int[Array, ""]
) -> Terms:
    """The terms of one draw: timestep and noise from its key, then the model."""
    latent = row.example.latent
    t, noise = keys.timestep_and_noise(root, row.words, draw, strata, model.timesteps, latent.shape)
    return model.terms(params, row.example, t, noise.astype(latent.dtype))
