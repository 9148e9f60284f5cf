"""Unlearning a query: its gradient over many draws, and the Fisher-regularised ascent along it.

L_unlearn(θ) = -L(ẑ, θ) + (N/2) (θ - θ0)ᵀ F (θ - θ0); one gradient step gives
θ = θ0 + (lr / N) F⁻¹ ∇L(ẑ, θ0) (Choi et al. 2025, arXiv 2506.18312; Wang et al. 2024, arXiv
2406.09408). The displacement Δ = θ - θ0 is kept apart from θ0, in full precision.

The gradient is kept in blocks of draws, which are independent of each other: their spread is the
noise in Δ, and products of different blocks carry no bias from it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tda_jax import devices, keys
from tda_jax import params as tree
from tda_jax.attribution.contract import Model, loss_of
from tda_jax.attribution.rows import Row, rows_of, terms_of_draw
from tda_jax.errors import InputError
from tda_jax.examples import Example


class UnusableQuery(InputError):
    """A query that cannot be unlearned; others can."""


class GradientPass(NamedTuple):
    """A compiled pass over the draws of a query.

    Attributes:
        mapped: the row function over devices.
        blocks: B, independent blocks of draws.
        per_block: draws in each, one in each of as many strata of the schedule.
        per_row: draws on one device at a time.
        key: the root key.
    """

    mapped: devices.RowMap
    blocks: int
    per_block: int
    per_row: int
    key: keys.Root


class QueryGradient(NamedTuple):
    """The gradient of a query's loss.

    Attributes:
        blocks: path -> (B, ...), the mean over each block's draws.
        loss: the query's mean loss over all draws.
    """

    blocks: tree.Flat
    loss: float


def make_gradient(
    model: Model, draws: int, blocks: int, seed: int, batch: int, used: tuple[jax.Device, ...]
) -> GradientPass:
    """Prepares the pass; it compiles at its first run.

    Args:
        model: whose loss it is.
        draws: M, over all blocks.
        blocks: B; it divides the draws.
        seed: of the draws.
        batch: draws on one device at a time.
        used: local devices.

    Raises:
        InputError: the blocks do not divide the draws, or there is less than one.
    """
    if blocks < 1 or draws < blocks or draws % blocks:
        raise InputError(f"{draws} query draws in {blocks} blocks; give a multiple of the blocks")
    per_block = draws // blocks
    per_row = max(k for k in range(1, min(per_block, batch) + 1) if per_block % k == 0)
    mapped = devices.row_sum(_gradient(model, per_block), used, 1)
    return GradientPass(mapped, blocks, per_block, per_row, keys.root(seed, keys.Domain.QUERY))


def place(gradient: GradientPass, moved: tree.Flat, rest: tree.Flat) -> Any:
    """Puts the group's parameters and the rest on the devices of the pass."""
    return devices.replicate((moved, rest, gradient.key), gradient.mapped.devices)


def query_gradient(
    gradient: GradientPass, placed: Any, step: tree.Flat, query: Example, query_id: str
) -> QueryGradient:
    """The gradient of one query at θ0 + step, block by block.

    Args:
        gradient: from `make_gradient`.
        placed: the parameters, from `place`.
        step: the displacement of the group so far; zeros for the first step.
        query: its arrays, without a leading axis. A mask over a part of it asks which tracks
            support that part.
        query_id: its name, which its draws depend on.

    Raises:
        UnusableQuery: a loss or gradient is not finite, or the gradient is zero throughout.
    """
    each = [
        block_gradient(gradient, placed, step, query, query_id, block)
        for block in range(gradient.blocks)
    ]
    return together(each, query_id)


def block_gradient(
    gradient: GradientPass, placed: Any, step: tree.Flat, query: Example, query_id: str, block: int
) -> tuple[tree.Flat, float]:
    """One block of a query's gradient, and its mean loss; other arguments as of `query_gradient`.

    Args:
        gradient: from `make_gradient`.
        placed: the parameters, from `place`.
        step: the displacement of the group so far.
        query: its arrays, without a leading axis.
        query_id: its name.
        block: 0 .. blocks-1, of which the draws are a function.

    Raises:
        UnusableQuery: a loss or gradient is not finite.
    """
    one = jax.tree.map(lambda x: np.asarray(x)[None], query)
    count, per_block = gradient.per_block, gradient.per_block // gradient.per_row
    rows = rows_of(one, keys.track_words([query_id]), gradient.blocks * count, gradient.per_row)
    total, losses = devices.add_rows(
        gradient.mapped,
        devices.zeros(step, gradient.mapped.devices),
        (placed, devices.replicate(step, gradient.mapped.devices)),
        lambda positions: rows(positions + block * per_block),
        per_block,
    )
    summed = devices.over_devices(total)
    # A draw that is not finite leaves no sum finite that it is in.
    if not all(np.isfinite(x).all() for x in (losses, *summed.values())):
        raise UnusableQuery(
            f"query {query_id!r}: a loss or gradient is not finite (mean loss {losses.mean()}); "
            "check its latent's scale, its condition and the weights"
        )
    mean = jax.tree.map(lambda x: x / x.dtype.type(count), summed)
    return mean, float(np.mean(losses, dtype=np.float64))


def together(blocks: Sequence[tuple[tree.Flat, float]], query_id: str) -> QueryGradient:
    """All blocks of a query's gradient as one.

    Raises:
        UnusableQuery: the gradient is zero throughout.
    """
    means = jax.tree.map(lambda *x: np.stack(x), *(mean for mean, _ in blocks))
    if not any(np.any(leaf) for leaf in means.values()):
        raise UnusableQuery(
            f"query {query_id!r}: its gradient is zero throughout; the loss does not depend on "
            "this group of parameters"
        )
    return QueryGradient(means, float(np.mean([loss for _, loss in blocks])))


def preconditioned(
    gradient: tree.Flat, fisher: tree.Flat, damping: float, corpus_size: int
) -> tree.Flat:
    """(F + λ)⁻¹ g / N, with λ = damping × the mean of F over the group.

    Args:
        gradient: path -> (...) or, for blocks, (B, ...).
        fisher: path -> (...).
        damping: c, above 0.
        corpus_size: N, the size of the model's training set.

    Raises:
        InputError: the damping or N is not above 0, the trees differ, or F is zero throughout.
    """
    if not (damping > 0 and math.isfinite(damping)) or corpus_size < 1:
        raise InputError(f"damping = {damping} and N = {corpus_size} must both be above 0")
    if gradient.keys() != fisher.keys():
        other = sorted(gradient.keys() ^ fisher.keys())[:3]
        raise InputError(f"gradient and Fisher information differ in {other}; use one group")
    mean = _mean(fisher)
    if not (mean > 0 and math.isfinite(mean)):
        raise InputError(f"the Fisher information has mean {mean}; it must be above 0 and finite")

    def scaled(g: np.ndarray, f: np.ndarray) -> np.ndarray:
        return g / (f + f.dtype.type(damping * mean)) / f.dtype.type(corpus_size)

    return {path: scaled(gradient[path], fisher[path]) for path in fisher}


def mean_of_blocks(blocks: tree.Flat) -> tree.Flat:
    """The mean over the leading axis of blocks."""
    return jax.tree.map(lambda x: x.mean(0), blocks)


def next_step(step: tree.Flat, direction: tree.Flat, rate: float) -> tree.Flat:
    """Δ ← Δ + lr · [(F + λ)⁻¹ ∇L(ẑ, θ0 + Δ)/N - Δ]: one of several steps.

    Args:
        step: Δ; zeros at first, where this is the formula of a single step.
        direction: (F + λ)⁻¹ ∇L(ẑ, θ0 + Δ)/N, from `preconditioned`.
        rate: the learning rate lr. Its sign says whether the query is forgotten (+) or learnt.
    """
    return jax.tree.map(lambda d, u: d + d.dtype.type(rate) * (u - d), step, direction)


def rate_for_rise(a: float, b: float, loss: float, rise: float) -> float:
    """The learning rate at which the query's own loss is predicted to rise by a share of itself.

    The smallest lr > 0 with lr·a + lr²·b = rise · loss: one raw rate does not fit all groups.

    Args:
        a: first-order term of the query along its own direction.
        b: second-order term along the direction as taken, noise included, since that is the step.
        loss: L(ẑ, θ0).
        rise: ρ, above 0.

    Raises:
        UnusableQuery: no learning rate above 0 reaches that rise.
    """
    wanted = rise * loss
    inside = a * a + 4 * b * wanted
    below = a + math.sqrt(inside) if inside >= 0 else 0.0
    if not (wanted > 0 and below > 0):
        raise UnusableQuery(
            f"no learning rate raises the query's loss {loss:.4g} by a share of {rise}: its first-"
            f"order term is {a:.4g}, its second {b:.4g}; use more query draws or a raw learning "
            "rate"
        )
    return 2 * wanted / below


def _mean(flat: tree.Flat) -> float:
    total = sum(float(np.sum(x, dtype=np.float64)) for x in flat.values())
    return total / sum(x.size for x in flat.values())


def _gradient(model: Model, strata: int) -> Callable[[Any, Row], Any]:
    """((parameters, step), row) -> (sum of gradients over the row's draws, True, losses)."""

    def row_gradient(
        shared: Any, row: Row
    ) -> tuple[tree.Flat, Bool[Array, ""], Float[Array, " k"]]:
        (moved, rest, root), step = shared

        def total(moved: tree.Flat) -> tuple[Float[Array, ""], Float[Array, " k"]]:
            params = tree.merge(moved, rest)
            losses = jax.vmap(
                lambda d: loss_of(terms_of_draw(model, strata, params, root, row, d))
            )(row.draws)
            return losses.sum(), losses

        at = jax.tree.map(jnp.add, moved, step)
        gradient, losses = jax.grad(total, has_aux=True)(at)
        return gradient, jnp.asarray(True), losses

    return row_gradient
