"""How long a draw takes in each stage of a run: each program timed on one batch of real tracks."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from tda_jax import devices, examples, keys
from tda_jax import params as tree
from tda_jax.attribution import fisher, information, linearised, passes, prepare, sweep, unlearn
from tda_jax.attribution.contract import Model, split_group
from tda_jax.attribution.engine import make_engine
from tda_jax.attribution.settings import Compute, Settings

_TIMES = 3


def probe(
    model: Model,
    corpus: examples.Corpus,
    queries: examples.Corpus,
    settings: Settings,
    compute: Compute,
) -> dict[str, float]:
    """Seconds of a (row, draw) pair on all devices of this process, by stage of `plan.plan`.

    The programs are those of the run, so a persistent compilation cache serves both. Each runs
    once to compile and to warm up, then three times; the median counts. Nothing is kept.

    Args:
        model: what to attribute.
        corpus: its tracks.
        queries: to be attributed; the first one is taken.
        settings: what decides the scores.
        compute: devices and batches.
    """
    moved, rest = devices.replicate(split_group(model, settings.group), compute.devices)
    engine = make_engine(model, settings, compute, moved, rest)
    zeros = prepare.no_step(moved)
    blocks = {p: np.zeros((settings.blocks, *x.shape), x.dtype) for p, x in zeros.items()}
    found = {
        "Fisher information": _fisher(model, corpus, settings, compute, moved, rest),
        "query gradients": _gradient(*engine.gradient, zeros, queries, settings),
        "query calibration": _linear(*engine.calibration, [blocks], queries),
    }
    seen = corpus._replace(examples=passes.sweep_examples(corpus, settings))
    if settings.method == "linearised":
        along = [blocks] * compute.queries_per_pass
        return found | {"linearised sweep": _linear(*engine.linear, along, seen)}
    seconds = _sweep(*engine.sweep, zeros, seen)
    return found | {"losses before": seconds, "losses after unlearning": seconds}


def _fisher(
    model: Model,
    corpus: examples.Corpus,
    settings: Settings,
    compute: Compute,
    moved: tree.Flat,
    rest: tree.Flat,
) -> float:
    made = fisher.make_fisher(
        model, settings.fisher_draws, settings.seed, compute.fisher_batch, compute.devices
    )
    placed, (per_row, rows) = fisher.place(made, moved, rest), made.layout
    made = made._replace(draws=per_row)
    some = _tracks(corpus, len(compute.devices) * rows)
    weighed = information.fisher_rows(corpus, settings).weights is not None
    weights = np.ones(len(some.ids)) if weighed else None

    def run() -> None:
        start = fisher.start(made, moved)
        total = fisher.add(made, start, placed, some.examples, some.ids, weights)
        jax.block_until_ready(total.squares)

    return _seconds(run) / (len(some.ids) * per_row)


def _gradient(
    made: unlearn.GradientPass,
    placed: Any,
    zeros: tree.Flat,
    queries: examples.Corpus,
    settings: Settings,
) -> float:
    few = made._replace(blocks=1, per_block=made.per_row * len(made.mapped.devices))
    one = prepare.one_query(examples.in_memory(examples.take(queries, [0])), settings)
    return (
        _seconds(partial(unlearn.block_gradient, few, placed, zeros, one, queries.ids[0], 0))
        / few.per_block
    )


def _linear(
    made: linearised.LinearPass,
    placed: Any,
    directions: list[tree.Flat],
    corpus: examples.Corpus,
) -> float:
    few = made._replace(draws=keys.Draws(1, made.layout.per_row))
    some = _tracks(corpus, len(made.mapped.devices) * made.layout.rows)
    along = linearised.place_directions(few, directions)
    run = partial(linearised.expand, few, placed, along, some.examples, some.ids)
    return _seconds(run) / (len(some.ids) * few.draws.count)


def _sweep(made: sweep.Sweep, placed: Any, zeros: tree.Flat, corpus: examples.Corpus) -> float:
    few = made._replace(draws=keys.Draws(1, made.layout.per_row))
    some = _tracks(corpus, len(made.mapped.devices) * made.layout.rows)
    moved = sweep.displaced(few, placed, zeros)
    run = partial(sweep.losses, few, placed, moved, some.examples, some.ids)
    return _seconds(run) / (len(some.ids) * few.draws.count)


def _tracks(corpus: examples.Corpus, count: int) -> examples.Corpus:
    """So many rows, in turn where there are fewer; a time depends on no value."""
    return examples.in_memory(examples.take(corpus, np.arange(count) % len(corpus.ids)))


def _seconds(run: Callable[[], Any]) -> float:
    """The median time of a call that waits for its result."""
    run()
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return float(np.median(times))
