"""The controls of attribution by unlearning, on corpora whose relations are known; no retraining.

Composes them: seed by seed the arrays, which are kept, and from them the records.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from tda_jax.evaluation import controls_noise as noise
from tda_jax.evaluation import controls_passes
from tda_jax.evaluation import controls_seed as seeds
from tda_jax.evaluation import controls_stages as work
from tda_jax.evaluation import controls_studies as studies
from tda_jax.evaluation.controls_plan import Plan, refuse
from tda_jax.evaluation.controls_seed import Context, Progress
from tda_jax.evaluation.network import Network
from tda_jax.evaluation.records import Record, Table


def run(
    network: Callable[[int], Network],
    plan: Plan,
    workdir: Path,
    batch: int,
    used: tuple[jax.Device, ...],
    progress: Progress,
) -> Table:
    """Runs the controls, or what is missing of them.

    Args:
        network: the network of a seed, before training; the same but for its parameters.
        plan: sizes.
        workdir: kept between runs; each seed has a folder there.
        batch: (track, draw) pairs on one device at a time.
        used: local devices.
        progress: told of updates, and of tracks times passes.

    Raises:
        InputError: the plan cannot be carried out; the folder holds results of something else.
    """
    first = network(plan.seeds[0])
    refuse(plan, first)
    passes = controls_passes.make(first, plan, batch, used)
    records: list[Record] = []
    for seed in plan.seeds:
        c = seeds.context(seed, plan, network(seed), passes, workdir, progress)
        records += of_seed(c)
    return Table(records)


def of_seed(c: Context) -> Iterator[Record]:
    """The arrays of a seed, then its records."""
    plan, queries = c.plan, c.queries[: c.plan.studied_queries]
    seeds.trained(c)  # first, under a progress of its own
    main, stages = seeds.level(c, plan.updates[-1]), _Stages(c)
    steps = {
        query: stages.run(work.steps_work(c), lambda c, q=query: work.steps(c, main, q))
        for query in c.queries
    }
    s = studies.of_seed(c.seed, plan, c.corpus, seeds.before(c, main), c.queries)
    yield from studies.steps(s, steps)
    for query in c.queries:
        yield from noise.probes(s, query, steps[query])
    yield from _levels(c, s, stages)
    rates = {query: steps[query]["rate"] for query in queries}
    many = stages.run(work.draws_work(c), lambda c: work.draws(c, main))
    yield from noise.draws(s, many, queries, rates)
    first = queries[0]
    half = stages.run(plan.members, lambda c: work.half(c, main, first))
    yield from noise.half(s, first, half, steps[first])
    sets = stages.run(work.query_draws_work(c), lambda c: work.query_draws(c, main, first))
    yield from noise.query_draws(s, first, sets)


def _levels(c: Context, s: studies.Seed, stages: "_Stages") -> Iterator[Record]:
    """The records of every loss level."""
    before = {}
    for updates in c.plan.updates:
        at = seeds.level(c, updates)
        before[updates] = seeds.before(c, at)
        for query in c.queries[: c.plan.studied_queries]:
            found = stages.run(
                work.quadratic_work(c), lambda c, a=at, q=query: work.quadratic(c, a, q)
            )
            yield from studies.quadratic(s, query, updates, found)
    yield from studies.levels(s, before)


class _Stages:
    """Runs the stages of a seed one after another, under one progress."""

    def __init__(self, c: Context) -> None:
        self._context, self._done = c, 0
        levels = c.plan.studied_queries * len(c.plan.updates)
        self._total = len(c.queries) * work.steps_work(c) + levels * work.quadratic_work(c)
        self._total += work.draws_work(c) + c.plan.members + work.query_draws_work(c)

    def run(
        self, amount: int, stage: Callable[[Context], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """The arrays of a stage that is so many tracks times passes of work."""
        start = self._done
        told = self._context._replace(progress=lambda _, done, __: self._tell(start + done))
        found = stage(told)
        self._done += amount
        self._tell(self._done)
        return found

    def _tell(self, done: int) -> None:
        self._context.progress(f"seed {self._context.seed}, sweeps", done, self._total)
