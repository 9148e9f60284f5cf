"""Unlearning in all its ways, in the form of its rivals: what the defaults are chosen from.

Every way shares the query's gradient. The expansions along all directions come from two passes over
the corpus, one for the ways that move nothing beyond the transformer layers, whose tangents are
zero in all that lies before those, and from them every step, part and weighting; exact losses take
a pass for each step.
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
_FEW = "transformer"  # every model has this group


class _Expansions(NamedTuple):
    """The ways whose directions lie within some parameters, and the passes along them.

    Attributes:
        ways: positions in the plan.
        paths: of the parameters.
        tracks: the pass over the corpus, with placed parameters.
        own: the same program with the draws of the query's own response.
    """

    ways: tuple[int, ...]
    paths: tuple[str, ...]
    tracks: tuple[linearised.LinearPass, Any]
    own: tuple[linearised.LinearPass, Any]


class _Response(NamedTuple):
    """A query's own along a way: first and second order, and its loss. A control's a may be < 0."""

    a: float
    b: float
    loss: float


class Prepared(NamedTuple):
    """What all queries share: passes, placed parameters, F by kind, losses before."""

    gradient: tuple[unlearn.GradientPass, Any]
    linear: tuple[_Expansions, ...]
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
    made = unlearn.make_gradient(model, plan.query_draws, plan.blocks, seed, batch, used)
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
        tuple(_expansions(plan, task)),
        (swept, placed),
        {kind: _information(plan, task, kind, moved, rest) for kind in sorted(kinds)},
        zero,
        before,
        before_shared,
    )


def _sides(plan: Plan, task: Task) -> dict[str, tuple[int, ...]]:
    """Positions of the ways that stay within `_FEW`, and of those that do not, by a pattern."""
    groups = task.model.groups
    few = set(tree.split(task.model.params, groups[_FEW])[0])
    sides: dict[str, tuple[int, ...]] = {}
    for i, way in enumerate(plan.ways):
        inside = set(tree.split(task.model.params, groups[way.group])[0]) <= few
        pattern = groups[_FEW] if inside else ".*"
        sides[pattern] = (*sides.get(pattern, ()), i)
    return sides


def _expansions(plan: Plan, task: Task) -> Iterator[_Expansions]:
    """The passes of each side."""
    for pattern, chosen in _sides(plan, task).items():
        moved, rest = tree.split(task.model.params, pattern)
        pairs = linearised.pairs(task.batch, len(chosen) * plan.blocks)
        linear = linearised.make_linearised(task.model, plan.draws, task.seed, pairs, task.used)
        own = linear._replace(key=keys.root(task.seed, keys.Domain.CALIBRATION))
        yield _Expansions(
            chosen,
            tuple(moved),
            (linear, linearised.place(linear, moved, rest)),
            (own, linearised.place(own, moved, rest)),
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
    responses: dict[Way, _Response] = {}
    for part in prepared.linear:
        along = linearised.place_directions(
            part.tracks[0], [{p: directions[i][p] for p in part.paths} for i in part.ways]
        )
        seen = examples.unmasked(task.corpus.examples)
        got = linearised.expand(*part.tracks, along, seen, task.corpus.ids)
        own = linearised.expand(*part.own, along, query.examples, query.ids)
        for k, way in enumerate(plan.ways[i] for i in part.ways):
            responses[way] = _Response(
                *(float(x[0, k].mean(dtype=np.float64)) for x in (own.a, own.b_step)),
                float(own.loss.mean(dtype=np.float64)),
            )
            rates = {rise: unlearn.rate_for_rise(*responses[way], rise) for rise in plan.rises}
            yield from _read(plan, prepared, way, got.a[:, k], got.b[:, k], rates)
    yield from _exact(plan, task, prepared, directions, responses)


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
    responses: Mapping[Way, _Response],
) -> Iterator[tuple[str, np.ndarray]]:
    """What the losses after each exact step give."""
    swept, placed = prepared.sweep
    seen = examples.unmasked(task.corpus.examples)
    for step in plan.steps:
        i = plan.ways.index(step.way)
        rate = unlearn.rate_for_rise(*responses[step.way], step.rise) * (-1 if step.learn else 1)
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
    tangents = ways + len(_sides(plan, task))  # and the pass that they are carried along
    query = 3 * plan.query_draws + (n + 1) * count * tangents + len(plan.steps) * n * count
    return Passes(float(shared), float(query))
