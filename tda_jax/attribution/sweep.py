"""The losses of a corpus under given parameters, draw by draw. It knows nothing of unlearning.

The draws of a track are a function of (seed, track id, draw), so sweeps under two sets of
parameters are paired: the difference of two losses of one draw carries no noise of the draw itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tda_jax import devices, keys
from tda_jax import params as tree
from tda_jax.attribution.contract import Model, Terms, loss_of
from tda_jax.attribution.rows import Layout, Row, layout, rows_of, terms_of_draw
from tda_jax.examples import Example


class Sweep(NamedTuple):
    """A compiled sweep.

    Attributes:
        mapped: the row function over devices.
        layout: how draws lie in rows.
        draws: replicates and strata of each track.
        root: the key of this sweep.
        frames: whether losses per latent frame are kept too.
    """

    mapped: devices.RowMap
    layout: Layout
    draws: keys.Draws
    root: keys.Root
    frames: bool


class Losses(NamedTuple):
    """What a sweep gives.

    Attributes:
        draws: (n, R, S), the loss of each draw; nan or inf where the model gave none.
        frames: (n, frames), the squared error of each latent frame averaged over draws and over the
            frame's elements, masked or not; None unless asked for.
    """

    draws: Float[np.ndarray, "n R S"]
    frames: Float[np.ndarray, "n frames"] | None


def make_sweep(
    model: Model,
    draws: keys.Draws,
    seed: int,
    batch: int,
    used: tuple[jax.Device, ...],
    domain: keys.Domain = keys.Domain.SWEEP,
    frames: bool = False,
) -> Sweep:
    """Prepares a sweep; it compiles at its first run and then serves any parameters.

    Args:
        model: what to sweep.
        draws: per track.
        seed: of the draws.
        batch: (track, draw) pairs on one device at a time.
        used: local devices.
        domain: what the draws are for.
        frames: keep losses per frame as well.
    """
    laid = layout(draws.count, batch)
    mapped = devices.row_map(losses_row(model, draws.strata, frames), used, laid.rows)
    return Sweep(mapped, laid, draws, keys.root(seed, domain), frames)


def place(sweep: Sweep, moved: tree.Flat, rest: tree.Flat) -> Any:
    """Puts parameters on the sweep's devices, for `displaced` and `losses`."""
    return devices.replicate((moved, rest, sweep.root), sweep.mapped.devices)


def displaced(sweep: Sweep, placed: Any, step: tree.Flat) -> tree.Flat:
    """The group's parameters moved by a step, on the sweep's devices.

    Made once for a pass and not for every batch of it. Zeros leave them exactly as they are.
    """
    moved, *_ = placed
    return _added(moved, devices.replicate(step, sweep.mapped.devices))


def losses(
    sweep: Sweep, placed: Any, moved: tree.Flat, examples: Example, ids: Sequence[str]
) -> Losses:
    """The losses of tracks under parameters moved by a step.

    Args:
        sweep: from `make_sweep`.
        placed: the parameters, from `place`.
        moved: those of the group, from `displaced`.
        examples: the tracks, with a leading axis of n.
        ids: n names.
    """
    words = keys.track_words(ids)
    rows = rows_of(examples, words, sweep.draws.count, sweep.layout.per_row)
    blocks = sweep.draws.count // sweep.layout.per_row
    _, *others = placed
    out = devices.results(sweep.mapped, (moved, *others), rows, len(ids) * blocks)
    per_draw = out["loss"].reshape(len(ids), sweep.draws.replicates, sweep.draws.strata)
    if not sweep.frames:
        return Losses(per_draw, None)
    return Losses(per_draw, out["frames"].reshape(len(ids), blocks, -1).mean(1))


def losses_row(model: Model, strata: int, frames: bool) -> Callable[[Any, Row], Any]:
    """The losses of one row: (parameters, row) -> {"loss": (k,), "frames": (frames,)}."""

    def row_losses(shared: Any, row: Row) -> dict[str, Array]:
        moved, rest, root = shared
        params = tree.merge(moved, rest)

        def of_draw(draw: Array) -> dict[str, Array]:
            terms = terms_of_draw(model, strata, params, root, row, draw)
            kept = {"loss": loss_of(terms)}
            return kept | ({"frames": _by_frame(terms)} if frames else {})

        out = jax.vmap(of_draw)(row.draws)
        return out | ({"frames": out["frames"].mean(0)} if frames else {})

    return row_losses


@jax.jit
def _added(moved: tree.Flat, step: tree.Flat) -> tree.Flat:
    return jax.tree.map(jnp.add, moved, step)


def _by_frame(terms: Terms) -> Float[Array, " frames"]:
    squared = jnp.square(terms.prediction.astype(terms.target.dtype) - terms.target)
    return squared.reshape(squared.shape[0], -1).mean(1)
