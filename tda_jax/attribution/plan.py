"""What a run will take, before it starts: passes through the network, FLOPs and memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tda_jax import params as tree
from tda_jax.attribution import fisher, information, linearised, memory, sweep
from tda_jax.attribution.contract import Model, split_group
from tda_jax.attribution.rows import Layout
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.examples import Corpus


class Stage(NamedTuple):
    """One kind of work of a run.

    Attributes:
        pairs: (row, draw) pairs, or for a query's gradient its draws: one pass through the
            network each, of what is not there yet all of them.
        bytes: peak memory of each device, from the compiled program; None if not asked for.
        flops: of a pair, likewise.
    """

    pairs: int
    bytes: int | None = None
    flops: float | None = None


class _Need(NamedTuple):
    """Peak bytes of each device, and FLOPs of a pair."""

    bytes: int
    flops: float


def plan(
    model: Model, corpus: Corpus, queries: Corpus, settings: Settings, compute: Compute
) -> dict[str, Stage]:
    """The stages of a run in their order, with the memory of those that hold the most.

    The two programs are compiled for it; a persistent compilation cache serves them to the run.

    Args:
        model: what to attribute; shapes in place of parameters will do.
        corpus: its tracks, or units of them.
        queries: to be attributed.
        settings: what decides the scores.
        compute: devices and batches.
    """
    used = information.fisher_rows(corpus, settings)
    n, q = len(corpus.ids), len(queries.ids)
    parts = _parts(model, settings)
    weighed = used.weights is not None
    of_fisher = _fisher_need(model, *parts, corpus, settings, compute, weighed)
    stages = {
        "Fisher information": Stage(len(used.rows) * settings.fisher_draws, *of_fisher),
        "query gradients": Stage(q * settings.query_draws * settings.steps),
        "query calibration": Stage(q * settings.draws.count),
    }
    swept = n * settings.draws.count
    if settings.method == "linearised":
        passes = -(-q // compute.queries_per_pass)
        of_sweep = _linearised_need(model, *parts, corpus, settings, compute)
        return stages | {"linearised sweep": Stage(swept * passes, *of_sweep)}
    of_sweep = _exact_need(model, *parts, corpus, settings, compute)
    more = _displacements(parts[0], queries, compute)
    after = Stage(swept * q, of_sweep.bytes + more, of_sweep.flops)
    before = Stage(swept, flops=of_sweep.flops)
    return stages | {"losses before": before, "losses after unlearning": after}


def fisher_bytes(
    model: Model, corpus: Corpus, queries: Corpus, settings: Settings, compute: Compute
) -> int:
    """Peak bytes of each device in the pass for the Fisher information; arguments as of `plan`."""
    del queries
    weighed = information.fisher_rows(corpus, settings).weights is not None
    parts = _parts(model, settings)
    return _fisher_need(model, *parts, corpus, settings, compute, weighed).bytes


def sweep_bytes(
    model: Model, corpus: Corpus, queries: Corpus, settings: Settings, compute: Compute
) -> int:
    """Peak bytes of each device in the sweep; arguments as of `plan`."""
    parts = _parts(model, settings)
    if settings.method == "linearised":
        return _linearised_need(model, *parts, corpus, settings, compute).bytes
    need = _exact_need(model, *parts, corpus, settings, compute)
    return need.bytes + _displacements(parts[0], queries, compute)


def _parts(model: Model, settings: Settings) -> list[tree.Flat]:
    """The shapes of the group's parameters and of the rest."""
    return [_shapes(part) for part in split_group(model, settings.group)]


def _displacements(moved: tree.Flat, queries: Corpus, compute: Compute) -> int:
    """Bytes of the displacements that lie on a device at once, but for the first."""
    steps = min(len(queries.ids), compute.queries_per_pass)
    return (steps - 1) * sum(x.size * x.dtype.itemsize for x in moved.values())


def _fisher_need(
    model: Model,
    moved: tree.Flat,
    rest: tree.Flat,
    corpus: Corpus,
    settings: Settings,
    compute: Compute,
    weighed: bool,
) -> _Need:
    made = fisher.make_fisher(
        model, settings.fisher_draws, settings.seed, compute.fisher_batch, compute.devices
    )
    need = memory.of_fisher(made, (moved, rest, made.key), moved, corpus.examples, weighed)
    return _Need(need.peak, need.flops / _pairs(made.layout))


def _linearised_need(
    model: Model,
    moved: tree.Flat,
    rest: tree.Flat,
    corpus: Corpus,
    settings: Settings,
    compute: Compute,
) -> _Need:
    queries, blocks = compute.queries_per_pass, settings.blocks
    made = linearised.make_linearised(
        model,
        settings.draws,
        settings.seed,
        linearised.pairs(compute.batch, queries * blocks),
        compute.devices,
        dtype=settings.dtype,
        curved=settings.second_order,
    )
    placed = (_shapes(moved, made.dtype), _shapes(rest, made.dtype), made.key)
    need = memory.of_linearised(made, placed, moved, queries, blocks, corpus.examples)
    return _Need(need.peak, need.flops / _pairs(made.layout))


def _exact_need(
    model: Model,
    moved: tree.Flat,
    rest: tree.Flat,
    corpus: Corpus,
    settings: Settings,
    compute: Compute,
) -> _Need:
    made = sweep.make_sweep(
        model,
        settings.draws,
        settings.seed,
        compute.batch,
        compute.devices,
        frames=settings.frames,
    )
    need = memory.of_sweep(made, (moved, rest, made.root), moved, corpus.examples)
    return _Need(need.peak, need.flops / _pairs(made.layout))


def _pairs(laid: Layout) -> int:
    """(row, draw) pairs of one batch on one device."""
    return laid.per_row * laid.rows


def _shapes(flat: tree.Flat, dtype: Any = None) -> tree.Flat:
    return {
        path: jax.ShapeDtypeStruct(x.shape, dtype or jnp.dtype(x.dtype)) for path, x in flat.items()
    }
