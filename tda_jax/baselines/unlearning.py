"""Unlearning in all its ways, in the form of its rivals: what the defaults are chosen from.

Every way shares the query's gradient. The expansions along all directions come from one pass over
the corpus, and from them every step, part and weighting; exact losses take a pass for each step.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float64

from tda_jax import examples, keys
from tda_jax import params as tree
from tda_jax.attribution import fisher, linearised, scores, sweep, unlearn
from tda_jax.attribution.fisher import Kind
from tda_jax.attribution.group_directions import in_group, scrambled
from tda_jax.baselines.contract import Method, Passes, Scores, Task
from tda_jax.baselines.ways import Plan, Variant, Way, variant_of
from tda_jax.errors import InputError
from tda_jax.examples import Corpus

NAME = "unlearning"
_SHARED = "draws of all tracks"


class Prepared(NamedTuple):
    """What all queries share: passes, placed parameters, F by kind, losses before."""

    gradient: tuple[unlearn.GradientPass, Any]
    linear: tuple[linearised.LinearPass, Any]
    own: tuple[linearised.LinearPass, Any]
    sweep: tuple[sweep.Sweep, Any]
    information: Mapping[str, tree.Flat]
    zero: tree.Flat
    before: Float64[np.ndarray, "n R S"]
    before_shared: Float64[np.ndarray, "n R S"] | None


def unlearning(plan: Plan) -> Method:
    """The method, with a variant for each way, rule, step and weighting of a plan.

    Raises:
        InputError: a step is along a direction that the plan lacks.
    """
    if lacking := [s for s in plan.steps if s.way not in plan.ways]:
        raise InputError(f"steps along {lacking[0].way}, which is none of the plan's ways; add it")
    return Method(
        NAME,
        lambda task: _prepare(plan, task),
        lambda task, prepared, queries: _score(plan, task, prepared, queries),
        lambda task: _passes(plan, task),
    )


def _prepare(plan: Plan, task: Task) -> Prepared:
    model, seed, batch, used = task.model, task.seed, task.batch, task.used
    moved, rest = tree.split(model.params, ".*")
    count = len(plan.ways)
    few = linearised.pairs(batch, count * plan.blocks)
    made = unlearn.make_gradient(model, plan.query_draws, plan.blocks, seed, batch, used)
    linear = linearised.make_linearised(model, plan.draws, seed, few, used)
    own = linear._replace(key=keys.root(seed, keys.Domain.CALIBRATION))  # the same program
    swept = sweep.make_sweep(model, plan.draws, seed, batch, used)
    zero = {path: np.zeros(x.shape, x.dtype) for path, x in moved.items()}
    placed = sweep.place(swept, moved, rest)
    seen = examples.unmasked(task.corpus.examples)
    still = sweep.displaced(swept, placed, zero)
    before = sweep.losses(swept, placed, still, seen, task.corpus.ids).draws
    before_shared = None
    if any(step.shared for step in plan.steps):
        before_shared = sweep.losses(swept, placed, still, seen, _one_id(task)).draws
    kinds = {way.fisher for way in plan.ways}
    return Prepared(
        (made, unlearn.place(made, moved, rest)),
        (linear, linearised.place(linear, moved, rest)),
        (own, linearised.place(own, moved, rest)),
        (swept, placed),
        {kind: _information(plan, task, kind, moved, rest) for kind in sorted(kinds)},
        zero,
        before,
        before_shared,
    )


def _information(plan: Plan, task: Task, kind: Kind, moved: tree.Flat, rest: tree.Flat) -> Any:
    members = examples.take(task.corpus, np.flatnonzero(task.corpus.members))
    few = min(task.batch, plan.fisher_draws)
    made = fisher.make_fisher(task.model, plan.fisher_draws, task.seed, few, task.used, kind)
    total = fisher.start(made, moved)
    placed = fisher.place(made, moved, rest)
    return fisher.information(fisher.add(made, total, placed, members.examples, members.ids))


def _score(plan: Plan, task: Task, prepared: Prepared, queries: Corpus) -> Scores:
    each = [
        dict(_of_query(plan, task, prepared, examples.take(queries, [i])))
        for i in range(len(queries.ids))
    ]
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


def _of_query(
    plan: Plan, task: Task, prepared: Prepared, query: Corpus
) -> Iterator[tuple[str, Float64[np.ndarray, " n"]]]:
    """The scores of one query, by variant."""
    directions = _directions(plan, task, prepared, query)
    linear, placed = prepared.linear
    along = linearised.place_directions(linear, directions)
    seen = examples.unmasked(task.corpus.examples)
    got = linearised.expand(linear, placed, along, seen, task.corpus.ids)
    response = linearised.expand(*prepared.own, along, query.examples, query.ids)
    for i, way in enumerate(plan.ways):
        of_query = [float(x[0, i].mean(dtype=np.float64)) for x in (response.a, response.b_step)]
        rates = _rates(plan, *of_query, float(response.loss.mean(dtype=np.float64)))
        yield from _read(plan, prepared, way, got.a[:, i], got.b[:, i], rates)
    yield from _exact(plan, task, prepared, directions, response)


def _directions(plan: Plan, task: Task, prepared: Prepared, query: Corpus) -> list[tree.Flat]:
    """(F + λ)⁻¹ g / N of each way, over all parameters: path -> (blocks, ...)."""
    made, placed = prepared.gradient
    one = jax.tree.map(lambda x: x[0], query.examples)
    gradient = unlearn.query_gradient(made, placed, prepared.zero, one, query.ids[0])
    found = []
    for way in plan.ways:
        pattern, information = task.model.groups[way.group], prepared.information[way.fisher]
        u = in_group(gradient.blocks, information, pattern, way.damping, task.corpus_size)
        found.append(_scrambled(u, task.seed, query.ids[0]) if way.scrambled else u)
    return found


def _scrambled(blocks: tree.Flat, seed: int, name: str) -> tree.Flat:
    """Every block with the same random signs."""
    count = len(next(iter(blocks.values())))
    each = [scrambled({p: x[i] for p, x in blocks.items()}, seed, name) for i in range(count)]
    return {path: np.stack([one[path] for one in each]) for path in blocks}


def _rates(plan: Plan, a: float, b: float, loss: float) -> dict[float, float]:
    """The learning rate of each ρ; a scrambled direction may have a negative a."""
    return {rise: unlearn.rate_for_rise(a, b, loss, rise) for rise in plan.rises}


def _read(
    plan: Plan,
    prepared: Prepared,
    way: Way,
    a: np.ndarray,
    b: np.ndarray,
    rates: Mapping[float, float],
) -> Iterator[tuple[str, np.ndarray]]:
    """What the expansion along one way gives."""
    unit = scores.linearised(a, b, 1.0)
    for weighting in plan.weightings:
        for rule, values in (("odd", unit.odd), ("even", unit.even)):
            name = Variant(rule, way, None, weighting).name
            yield name, _weighed(prepared.before, values, weighting)
        for rise, rate in rates.items():
            values = scores.linearised(a, b, rate).total
            name = Variant("both", way, rise, weighting).name
            yield name, _weighed(prepared.before, values, weighting)


def _exact(
    plan: Plan,
    task: Task,
    prepared: Prepared,
    directions: list[tree.Flat],
    response: linearised.Expansion,
) -> Iterator[tuple[str, np.ndarray]]:
    """What the losses after each exact step give."""
    swept, placed = prepared.sweep
    seen = examples.unmasked(task.corpus.examples)
    for step in plan.steps:
        i = plan.ways.index(step.way)
        a, b = (float(x[0, i].mean(dtype=np.float64)) for x in (response.a, response.b_step))
        loss = float(response.loss.mean(dtype=np.float64))
        rate = unlearn.rate_for_rise(a, b, loss, step.rise) * (-1 if step.learn else 1)
        moved = sweep.displaced(
            swept,
            placed,
            unlearn.next_step(prepared.zero, unlearn.mean_of_blocks(directions[i]), rate),
        )
        ids = _one_id(task) if step.shared else task.corpus.ids
        before = prepared.before_shared if step.shared else prepared.before
        values = scores.exact(before, sweep.losses(swept, placed, moved, seen, ids).draws)
        for weighting in plan.weightings:
            yield variant_of(step, weighting).name, _weighed(before, values, weighting)


def _weighed(before: np.ndarray, values: np.ndarray, weighting: str) -> np.ndarray:
    """Scores of tracks; nan for one with a draw that is not finite."""
    finite = np.isfinite(values).all((1, 2))
    found = np.full(len(values), np.nan)
    weights = scores.bin_weights(values[finite], weighting, before[finite])
    found[finite] = scores.weighted(values[finite], weights)
    return found


def _one_id(task: Task) -> list[str]:
    """The same id for every track, and so the same draws."""
    return [_SHARED] * len(task.corpus.ids)


def _passes(plan: Plan, task: Task) -> Passes:
    """What all variants together take."""
    n, count, ways = len(task.corpus.ids), plan.draws.count, plan.blocks * len(plan.ways)
    members, kinds = int(task.corpus.members.sum()), len({way.fisher for way in plan.ways})
    befores = 1 + any(step.shared for step in plan.steps)
    shared = 3 * kinds * members * plan.fisher_draws + befores * n * count
    query = 3 * plan.query_draws + (n + 1) * count * (1 + ways) + len(plan.steps) * n * count
    return Passes(float(shared), float(query))
