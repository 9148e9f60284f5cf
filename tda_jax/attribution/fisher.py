"""The diagonal empirical Fisher information of a group of parameters.

F = mean over (track, draw) of g², where g is the gradient of that single draw's loss: the square of
each draw's own gradient, never the square of a mean (Choi et al. 2025, arXiv 2506.18312, after
Kirkpatrick et al. 2017, arXiv 1612.00796). Tracks count alike: where a row is one of U units of a
track (its windows and captions), its squares weigh 1/U, so that F = Σ w g² / Σ w over the (row,
draw) pairs that are usable.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64

from tda_jax import devices, keys
from tda_jax import params as tree
from tda_jax.attribution.contract import Model, Terms, loss_of, weights_of
from tda_jax.attribution.rows import Layout, Row, layout, rows_of, terms_of_draw
from tda_jax.errors import InputError
from tda_jax.examples import Example
from tda_jax.precision import working_dtype

Kind = Literal["residual", "probe"]


class FisherSum(NamedTuple):
    """Squared gradients summed over some (row, draw) pairs, to be added to and divided at last.

    Attributes:
        squares: path -> sum of w g², with a leading axis of devices while it is being summed.
        count: how many pairs are in it.
        weight: the sum of their weights w; the count itself where each row is a whole track.
        left_out: (id, draw, reason) of pairs that are not: a loss or gradient that is not finite,
            or a gradient that is zero throughout.
    """

    squares: tree.Flat
    count: int
    weight: float
    left_out: tuple[tuple[str, int, str], ...]


class FisherPass(NamedTuple):
    """A compiled pass: `mapped` over devices, the `layout` of draws in rows, the root `key`."""

    mapped: devices.RowMap
    layout: Layout
    draws: int
    key: keys.Root


def make_fisher(
    model: Model,
    draws: int,
    seed: int,
    batch: int,
    used: tuple[jax.Device, ...],
    kind: Kind = "residual",
) -> FisherPass:
    """Prepares the pass; it compiles at its first run.

    Args:
        model: whose Fisher information it is.
        draws: per row, one in each of `draws` strata of the schedule.
        seed: of the draws.
        batch: (row, draw) pairs on one device at a time. Each holds a gradient of the group.
        used: local devices.
        kind: "residual", of the loss's own gradient; or "probe", the Gauss-Newton diagonal.
    """
    laid = layout(draws, batch)
    probe = keys.root(seed, keys.Domain.PROBE) if kind == "probe" else None
    mapped = devices.row_sum(_squares(model, draws, probe), used, laid.rows)
    return FisherPass(mapped, laid, draws, keys.root(seed, keys.Domain.FISHER))


def place(fisher: FisherPass, moved: tree.Flat, rest: tree.Flat) -> Any:
    """Puts the group's parameters and the rest on the devices of the pass."""
    return devices.replicate((moved, rest, fisher.key), fisher.mapped.devices)


def start(fisher: FisherPass, moved: tree.Flat) -> FisherSum:
    """A sum of nothing, on the devices of the pass."""
    return FisherSum(devices.zeros(moved, fisher.mapped.devices), 0, 0.0, ())


def add(
    fisher: FisherPass,
    so_far: FisherSum,
    placed: Any,
    examples: Example,
    ids: Sequence[str],
    weights: Float64[np.ndarray, " n"] | None = None,
) -> FisherSum:
    """Adds the draws of some rows.

    Args:
        fisher: the pass.
        so_far: from `start` or an earlier call; it is used up.
        placed: from `place`.
        examples: arrays with a leading axis of n.
        ids: n, of the rows.
        weights: of each row, above 0; None where each is a whole track, which weighs 1.

    Raises:
        InputError: the weights are not n, or one is not above 0.
    """
    each = np.ones(len(ids)) if weights is None else weights
    if each.shape != (len(ids),) or not (each > 0).all():
        raise InputError(f"weights {each} of {len(ids)} rows; give each a number above 0")
    blocks = fisher.draws // fisher.layout.per_row
    plain = rows_of(examples, keys.track_words(ids), fisher.draws, fisher.layout.per_row)

    def rows(positions: np.ndarray) -> tuple[Row, Any]:
        if weights is None:  # the program is then one without weights
            return plain(positions), None
        return plain(positions), weights[positions // blocks].astype(jnp.result_type(float))

    squares, info = devices.add_rows(fisher.mapped, so_far.squares, placed, rows, len(ids) * blocks)
    finite = info["finite"].reshape(len(ids), fisher.draws)
    moves = info["moves"].reshape(len(ids), fisher.draws)
    left_out = [
        (ids[i], int(d), "all-zero gradient" if finite[i, d] else "non-finite loss or gradient")
        for i, d in np.argwhere(~(finite & moves))
    ]
    count = so_far.count + finite.size - len(left_out)
    weight = so_far.weight + float(each @ (finite & moves).sum(1))
    return FisherSum(squares, count, weight, so_far.left_out + tuple(left_out))


def information(total: FisherSum) -> tree.Flat:
    """The Fisher information: the weighted mean over the pairs of a sum, as numpy arrays.

    Raises:
        InputError: there are none.
    """
    if total.count == 0:
        raise InputError(
            f"no draw gave a usable gradient: {total.left_out[:3]} and so on; check the model's "
            "weights, and that the loss depends on the group"
        )
    return jax.tree.map(
        lambda x: x / x.dtype.type(total.weight), devices.over_devices(total.squares)
    )


def _squares(
    model: Model, strata: int, probe: keys.Root | None
) -> Callable[[Any, tuple[Row, Any]], Any]:
    """(parameters, (row, w)) -> (sum over the row's draws of w g², whether any is good, flags)."""

    def row_squares(
        placed: Any, weighed: tuple[Row, Float[Array, ""] | None]
    ) -> tuple[tree.Flat, Bool[Array, ""], dict[str, Array]]:
        moved, rest, root = placed
        row, weight = weighed

        def of_draw(draw: Array) -> tuple[Float[Array, ""], tree.Flat]:
            def loss(moved: tree.Flat) -> Float[Array, ""]:
                params = tree.merge(moved, rest)
                terms = terms_of_draw(model, strata, params, root, row, draw)
                if probe is None:
                    return loss_of(terms)
                return _probed(terms, keys.draw_key(probe, row.words, draw))

            return jax.value_and_grad(loss)(moved)

        losses, gradients = jax.vmap(of_draw)(row.draws)
        squares = jax.tree.map(jnp.square, gradients)
        norms = sum(jnp.sum(s, axis=tuple(range(1, s.ndim))) for s in jax.tree.leaves(squares))
        finite = jnp.isfinite(losses) & jnp.isfinite(norms)
        good = finite & (norms > 0)

        def total(s: Array) -> Array:
            chosen = good.reshape(good.shape + (1,) * (s.ndim - 1))
            summed = jnp.where(chosen, s, jnp.zeros_like(s)).sum(0)
            return summed if weight is None else summed * weight.astype(summed.dtype)

        return jax.tree.map(total, squares), good.any(), {"finite": finite, "moves": norms > 0}

    return row_squares


def _probed(terms: Terms, key: Array) -> Float[Array, ""]:
    """vᵀ √(2W) p of one draw, whose squared gradient estimates the Gauss-Newton diagonal."""
    dtype = working_dtype(terms.prediction.dtype)
    sign = jax.random.rademacher(key, terms.prediction.shape, dtype)
    weight = jnp.sqrt(2 * weights_of(terms, dtype))
    return jnp.sum(sign * weight * terms.prediction.astype(dtype))
