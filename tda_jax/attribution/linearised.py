"""Scores of every learning rate from one forward-mode pass along an unlearning direction.

With u the direction, p the prediction, y the target and J u the derivative of p along u, the loss
of a track at θ0 + lr·u is, to second order,

    τ(lr) ≈ lr·a + lr²·b,    a = mean(2 (p - y) J u),    b = mean((J u)²)

a is odd in the step and carries its sign; b is even and carries none. There is no difference of
nearly equal losses in it, so it holds at any small step and in half precision too.

u is the mean of B directions from independent blocks of the query's draws. Noise in u adds its
variance to (J u)²; the mean over pairs of *different* blocks, mean(J u_j · J u_k), has none of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tda_jax import devices, keys
from tda_jax import params as tree
from tda_jax.attribution.contract import Model, Terms, loss_of, weights_of
from tda_jax.attribution.rows import Layout, Row, layout, rows_of, terms_of_draw
from tda_jax.examples import Example
from tda_jax.precision import working_dtype


class LinearPass(NamedTuple):
    """A compiled pass: `mapped` over devices, the `layout` and number of `draws`, the root `key`.

    The network runs in `dtype`: float32, float64 or bfloat16.
    """

    mapped: devices.RowMap
    layout: Layout
    draws: keys.Draws
    key: keys.Root
    dtype: Any


class Expansion(NamedTuple):
    """How the losses of n tracks change along the directions of Q queries, draw by draw.

    Attributes:
        loss: (n, R, S), at θ0.
        a: (n, Q, R, S), first order in the learning rate.
        b: (n, Q, R, S), second order, over pairs of different blocks: without bias from noise in
            the direction. With one block there are no pairs, and it is `b_step`.
        b_step: (n, Q, R, S), second order along the direction as taken, its noise included: what a
            real step does.
        a_without: (n, Q, B, S), a without block k, averaged over replicates; for the jackknife.
        b_without: (n, Q, B, S), b without block k; nan below 3 blocks.
        curved: (n, Q, R, S), mean((p - y) ∂²p[u, u]), the second-order term that b leaves out;
            None unless asked for.
    """

    loss: Float[np.ndarray, "n R S"]
    a: Float[np.ndarray, "n Q R S"]
    b: Float[np.ndarray, "n Q R S"]
    b_step: Float[np.ndarray, "n Q R S"]
    a_without: Float[np.ndarray, "n Q B S"]
    b_without: Float[np.ndarray, "n Q B S"]
    curved: Float[np.ndarray, "n Q R S"] | None


def make_linearised(
    model: Model,
    draws: keys.Draws,
    seed: int,
    batch: int,
    used: tuple[jax.Device, ...],
    domain: keys.Domain = keys.Domain.SWEEP,
    dtype: Any = jnp.float32,
    curved: bool = False,
) -> LinearPass:
    """Prepares the pass; it compiles at its first run, once for each number of queries.

    Args:
        model: what to expand.
        draws: per track.
        seed: of the draws; the same seed and domain give the draws of a sweep.
        batch: (track, draw) pairs on one device at a time.
        used: local devices.
        domain: what the draws are for.
        dtype: of the network; sums and products of its outputs are in float32 at least.
        curved: also the exact second-order term, for about twice the time.
    """
    laid = layout(draws.count, batch)
    mapped = devices.row_map(_expand(model, draws.strata, curved), used, laid.rows)
    return LinearPass(mapped, laid, draws, keys.root(seed, domain), jnp.dtype(dtype))


def pairs(batch: int, directions: int) -> int:
    """How many (track, draw) pairs go through the network at a time, each with all its tangents.

    Args:
        batch: latents on one device at a time; the tangent of each direction counts as one.
        directions: Q · B.
    """
    return max(1, batch // directions)


def place(linear: LinearPass, moved: tree.Flat, rest: tree.Flat) -> Any:
    """Puts the group's parameters and the rest on the devices, in the pass's type."""
    cast = (_cast(moved, linear.dtype), _cast(rest, linear.dtype), linear.key)
    return devices.replicate(cast, linear.mapped.devices)


def place_directions(linear: LinearPass, directions: Sequence[tree.Flat]) -> tree.Flat:
    """Puts the directions of Q queries on the devices: path -> (..., Q, B, last axis).

    Args:
        linear: from `make_linearised`.
        directions: for each query path -> (B, ...), with one B for all.
    """

    def stacked(*blocks: np.ndarray) -> np.ndarray:
        axis = _axis(blocks[0].ndim - 1)
        return np.stack([np.moveaxis(x.astype(linear.dtype), 0, axis) for x in blocks], axis)

    return devices.replicate(jax.tree.map(stacked, *directions), linear.mapped.devices)


def directions_shape(leaf: tuple[int, ...], queries: int, blocks: int) -> tuple[int, ...]:
    """The shape that `place_directions` gives a leaf's directions."""
    axis = _axis(len(leaf))
    return (*leaf[:axis], queries, blocks, *leaf[axis:])


def expand(
    linear: LinearPass, placed: Any, directions: tree.Flat, examples: Example, ids: Sequence[str]
) -> Expansion:
    """Expands the losses of tracks along the directions of several queries, in one pass.

    Args:
        linear: from `make_linearised`.
        placed: the parameters, from `place`.
        directions: from `place_directions`.
        examples: the tracks, with a leading axis of n.
        ids: n names.
    """
    count, per_row = linear.draws.count, linear.layout.per_row
    rows = rows_of(examples, keys.track_words(ids), count, per_row)
    out = devices.results(linear.mapped, (placed, directions), rows, len(ids) * (count // per_row))
    return _by_draw(out, len(ids), linear.draws)


def _by_draw(out: dict[str, np.ndarray], n: int, draws: keys.Draws) -> Expansion:
    """Gives rows (n · blocks, k, ...) the axes that `Expansion` names."""

    def by_draw(x: np.ndarray) -> np.ndarray:
        x = x.reshape(n, draws.replicates, draws.strata, *x.shape[2:])
        return np.moveaxis(x, (1, 2), (-2, -1))

    full = {name: by_draw(x) for name, x in out.items()}
    full["a_without"] = full["a_without"].mean(-2)
    full["b_without"] = full["b_without"].mean(-2)
    return Expansion(**({"curved": None} | full))


def _axis(ndim: int) -> int:
    """Where the directions of a parameter with so many axes lie: before its last axis.

    A layer's product with all of its directions is then one product with a wide matrix. With the
    directions in front, XLA would copy every one of them for every batch.
    """
    return max(ndim - 1, 0)


def _cast(flat: tree.Flat, dtype: Any) -> tree.Flat:
    return {path: leaf.astype(dtype) for path, leaf in flat.items()}


def _expand(model: Model, strata: int, curved: bool) -> Callable[[Any, Row], Any]:
    """((parameters, directions), row) -> the terms of each draw of the row."""

    def row_expansion(shared: Any, row: Row) -> dict[str, Array]:
        (moved, rest, root), directions = shared
        axes = {path: _axis(leaf.ndim) for path, leaf in moved.items()}
        path, axis = next(iter(axes.items()))
        queries, blocks = directions[path].shape[axis : axis + 2]
        together = jax.tree.map(lambda x, i: jax.lax.collapse(x, i, i + 2), directions, axes)

        def of_draw(draw: Array) -> dict[str, Array]:
            def predict(moved: tree.Flat) -> tuple[Array, Terms]:
                params = tree.merge(moved, rest)
                terms = terms_of_draw(model, strata, params, root, row, draw)
                return terms.prediction, terms

            # The tangents alone carry the axis of directions: the primal pass runs once.
            _, tangents, at = jax.vmap(
                lambda u: jax.jvp(predict, (moved,), (u,), has_aux=True),
                in_axes=(axes,),
                out_axes=(None, 0, None),
            )(together)
            out = _quadratic(at, tangents.reshape(queries, blocks, *tangents.shape[1:]))
            if curved:
                mean = jax.tree.map(lambda u, i: u.mean(i + 1), directions, axes)
                along = jax.vmap(lambda u: _curvature(at, predict, moved, u), in_axes=(axes,))
                out["curved"] = along(mean)
            return out

        return jax.vmap(of_draw)(row.draws)

    return row_expansion


def _quadratic(at: Terms, tangents: Float[Array, "Q B ..."]) -> dict[str, Array]:
    """A and b of one draw, and both without each block."""
    dtype = working_dtype(at.prediction.dtype)
    residual, tangents = (
        at.prediction.astype(dtype) - at.target.astype(dtype),
        tangents.astype(dtype),
    )
    queries, blocks = tangents.shape[:2]
    weight = weights_of(at, dtype)
    flat = tangents.reshape(queries, blocks, -1)
    firsts = 2 * flat @ (weight * residual).reshape(-1)  # (Q, B)
    gram = jnp.einsum("qjx,qkx,x->qjk", flat, flat, weight.reshape(-1))
    total, own = gram.sum((1, 2)), jnp.trace(gram, axis1=1, axis2=2)
    b_step = total / blocks**2
    out = {"loss": loss_of(at), "a": firsts.mean(1), "b_step": b_step, "b": b_step}
    if blocks > 1:
        out["b"] = (total - own) / (blocks * (blocks - 1))
    others = max(blocks - 1, 1)
    out["a_without"] = (firsts.sum(1, keepdims=True) - firsts) / others
    diagonal = jnp.diagonal(gram, axis1=1, axis2=2)
    without = (total - own)[:, None] - 2 * (gram.sum(2) - diagonal)  # pairs without block k
    pairs = (blocks - 1) * (blocks - 2)
    out["b_without"] = without / pairs if pairs else jnp.full_like(without, jnp.nan)
    return out


def _curvature(
    at: Terms, predict: Callable[[tree.Flat], tuple[Array, Any]], moved: tree.Flat, u: tree.Flat
) -> Float[Array, ""]:
    """mean((p - y) ∂²p[u, u]) of one draw, by forward mode over forward mode."""

    def along(m: tree.Flat) -> Array:
        return jax.jvp(lambda m: predict(m)[0], (m,), (u,))[1]

    second = jax.jvp(along, (moved,), (u,))[1]
    dtype = working_dtype(second.dtype)
    residual = at.prediction.astype(dtype) - at.target.astype(dtype)
    return jnp.sum(weights_of(at, dtype) * residual * second.astype(dtype))
