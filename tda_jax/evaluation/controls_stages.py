"""The arrays of the controls for one seed: expansions and exact losses, kept query by query.

steps-QUERY          every group, true and scrambled, at ρ and at raw learning rates
quadratic-LEVEL-QUERY  with the second-order term, at several ρ
draws                many draws of each track
half-QUERY           the expansion in bfloat16
query_draws-QUERY    from independent sets of the query's draws
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tda_jax import examples, keys
from tda_jax import params as tree
from tda_jax.attribution import linearised, sweep, unlearn
from tda_jax.attribution.group_directions import in_group, scrambled
from tda_jax.evaluation import controls_seed as seed
from tda_jax.evaluation.controls_seed import Context, Level, kept

Arrays = dict[str, np.ndarray]

_STEPS = (*seed.DIRECTION, "groups", "replicates", "strata", "own_replicates", "rise")
_QUADRATIC = (*_STEPS, "studied_groups", "rises")
_DRAWS = (*_STEPS, "studied_queries", "studied_groups", "draw_counts")


def steps(c: Context, at: Level, query: str) -> Arrays:
    """One query under every group: expansions, and losses after each exact step.

    Returns:
        Of directions d in the order group 0, group 0 scrambled, group 1, ..:
        own_loss (), own_a (d,), own_b (d,): the query's own response. rate (d,): its learning rate
        for ρ. a, b (n, d, R, S): of every track. Of steps s in the order ρ, raw learning rates:
        after (groups, s, n, R, S); own_before (R', S); own_after (groups, s, R', S).
    """
    return kept(c, f"steps-{query}", (*_STEPS, "rates"), lambda: _steps(c, at, query))


def quadratic(c: Context, at: Level, query: str) -> Arrays:
    """One query at one level under the studied groups g, over the members m.

    Returns:
        before (m, R, S); a, b, curved (m, g, R, S); rate (g, ρ); after (g, ρ, m, R, S).
    """
    name = f"quadratic-{at.updates}-{query}"
    return kept(c, name, _QUADRATIC, lambda: _quadratic(c, at, query))


def draws(c: Context, at: Level) -> Arrays:
    """Many draws of each member: a, b (m, studied queries x studied groups, R, S)."""
    return kept(c, "draws", _DRAWS, lambda: _draws(c, at))


def half(c: Context, at: Level, query: str) -> Arrays:
    """One query under every group as in `steps`, in bfloat16, over members: a, b (m, d, R, S)."""
    return kept(c, f"half-{query}", _STEPS, lambda: _half(c, at, query))


def query_draws(c: Context, at: Level, query: str) -> Arrays:
    """One query from two independent sets of its draws, of each size, over the members.

    Returns:
        Of g the studied groups, k the numbers of draws, 2 the sets: own_loss (g,); own_a, own_b
        (g, k, 2); a, b, b_step (g, m, k, 2, R, S), b over pairs of the set's own halves.
    """
    return kept(c, f"query_draws-{query}", _QUADRATIC, lambda: _query_draws(c, at, query))


def _steps(c: Context, at: Level, query: str) -> Arrays:
    plan, linear = c.plan, c.passes.linear
    plain = _directions(c, at, query, plan.groups)
    along = _placed(linear, _with_scrambled(c, plain, query))
    own = _own(c, linear, at.placed.linear, along, query)
    rate = _rates(own, [plan.rise])[:, 0]
    got = _expand(c, linear, at.placed.linear, along, c.corpus)
    c.progress("expansions", len(c.corpus.ids), steps_work(c))
    pairs = zip(plain, rate[::2], strict=True)
    each = [(u, r) for u, own_rate in pairs for r in (own_rate, *plan.rates)]
    after, own_after = [], []
    for i, (u, r) in enumerate(each):
        step = unlearn.next_step(seed.no_step(at), u, float(r))
        after.append(seed.losses(c, at, step, c.corpus))
        own_after.append(_own_losses(c, at, step, query))
        c.progress("losses", (i + 2) * len(c.corpus.ids), steps_work(c))
    lead = (len(plan.groups), 1 + len(plan.rates))
    return own | {
        "rate": rate,
        "a": got.a,
        "b": got.b_step,
        "after": np.stack(after).reshape(*lead, *after[0].shape),
        "own_before": _own_losses(c, at, seed.no_step(at), query),
        "own_after": np.stack(own_after).reshape(*lead, *own_after[0].shape),
    }


def _quadratic(c: Context, at: Level, query: str) -> Arrays:
    plan, curved, used = c.plan, c.passes.curved, seed.members(c)
    plain = _directions(c, at, query, plan.studied_groups)
    along = _placed(curved, plain)
    rate = _rates(_own(c, curved, at.placed.curved, along, query), plan.rises)
    got = _expand(c, curved, at.placed.curved, along, used)
    c.progress("expansions", len(used.ids), quadratic_work(c))
    each = [(u, r) for u, rates in zip(plain, rate, strict=True) for r in rates]
    after = []
    for i, (u, r) in enumerate(each):
        step = unlearn.next_step(seed.no_step(at), u, float(r))
        after.append(seed.losses(c, at, step, used))
        c.progress("losses", (i + 2) * len(used.ids), quadratic_work(c))
    return {
        "before": seed.before(c, at)[c.corpus.members],
        "a": got.a,
        "b": got.b_step,
        "curved": got.curved,
        "rate": rate,
        "after": np.stack(after).reshape(*rate.shape, *after[0].shape),
    }


def _draws(c: Context, at: Level) -> Arrays:
    chosen = c.queries[: c.plan.studied_queries]
    along = [u for query in chosen for u in _directions(c, at, query, c.plan.studied_groups)]
    linear = c.passes.linear._replace(draws=c.plan.many_draws)
    got = _expand(c, linear, at.placed.linear, _placed(linear, along), seed.members(c))
    return {"a": got.a, "b": got.b_step}


def _half(c: Context, at: Level, query: str) -> Arrays:
    plain = _directions(c, at, query, c.plan.groups)
    along = _placed(c.passes.half, _with_scrambled(c, plain, query))
    got = _expand(c, c.passes.half, at.placed.half, along, seed.members(c))
    return {"a": got.a, "b": got.b_step}


def _query_draws(c: Context, at: Level, query: str) -> Arrays:
    plan, linear = c.plan, c.passes.linear
    counts = [count // plan.block_draws for count in plan.query_draw_counts]
    blocks = seed.gradient_blocks(c, at, query, 2 * counts[-1])
    out = []
    for group in plan.studied_groups:
        pattern = c.network.groups[group]
        along = in_group(blocks, at.fisher, pattern, plan.damping, plan.members)
        sets = [_halves(along, start, count) for count in counts for start in (0, counts[-1])]
        placed = linearised.place_directions(linear, sets)
        got = _expand(c, linear, at.placed.linear, placed, seed.members(c))
        own = _own(c, linear, at.placed.linear, placed, query)
        full = {"a": got.a, "b": got.b, "b_step": got.b_step}
        out.append(full | own)
    lead = (len(counts), 2)
    together = {name: np.stack([part[name] for part in out]) for name in out[0]}
    return {
        name: x if name == "own_loss" else _split(x, 1 if name.startswith("own") else 2, lead)
        for name, x in together.items()
    }


def _halves(along: tree.Flat, start: int, count: int) -> tree.Flat:
    """The mean direction of either half of `count` blocks: path -> (2, ...)."""
    half = count // 2
    return {
        path: np.stack([x[start + i * half :][:half].mean(0) for i in (0, 1)])
        for path, x in along.items()
    }


def _split(x: np.ndarray, axis: int, lead: tuple[int, int]) -> np.ndarray:
    return x.reshape(*x.shape[:axis], *lead, *x.shape[axis + 1 :])


def steps_work(c: Context) -> int:
    """Tracks times passes of `steps`."""
    return len(c.corpus.ids) * (1 + len(c.plan.groups) * (1 + len(c.plan.rates)))


def quadratic_work(c: Context) -> int:
    """Tracks times passes of `quadratic`."""
    return c.plan.members * (1 + len(c.plan.studied_groups) * len(c.plan.rises))


def draws_work(c: Context) -> int:
    """Tracks times passes of `draws`."""
    return c.plan.members * c.plan.many_draws.count // c.plan.draws.count


def query_draws_work(c: Context) -> int:
    """Tracks times passes of `query_draws`."""
    return c.plan.members * len(c.plan.studied_groups)


def _directions(c: Context, at: Level, query: str, groups: Sequence[str]) -> list[tree.Flat]:
    whole, plan = seed.gradient(c, at, query), c.plan
    patterns = [c.network.groups[group] for group in groups]
    return [in_group(whole, at.fisher, p, plan.damping, plan.members) for p in patterns]


def _with_scrambled(c: Context, plain: Sequence[tree.Flat], query: str) -> list[tree.Flat]:
    """Each direction, followed by itself with random signs."""
    return [v for u in plain for v in (u, scrambled(u, c.seed, query))]


def _placed(linear: linearised.LinearPass, directions: Sequence[tree.Flat]) -> tree.Flat:
    """Directions of one block each, on the devices."""
    return linearised.place_directions(
        linear, [{path: leaf[None] for path, leaf in u.items()} for u in directions]
    )


def _own(
    c: Context, linear: linearised.LinearPass, placed: Any, along: tree.Flat, query: str
) -> Arrays:
    """The query's own response, on draws of their own; its padding does not count."""
    made = linear._replace(key=keys.root(c.seed, keys.Domain.CALIBRATION), draws=c.plan.own_draws)
    params, rest, _ = placed
    again = linearised.place(made, params, rest)
    one = seed.one_query(c, query)
    got = linearised.expand(made, again, along, one.examples, one.ids)
    mean = {"loss": got.loss, "a": got.a, "b": got.b_step}
    return {
        f"own_{name}": np.asarray(x[0].mean((-2, -1), dtype=np.float64)) for name, x in mean.items()
    }


def _rates(own: Mapping[str, np.ndarray], rises: Sequence[float]) -> np.ndarray:
    """The learning rate of each direction and rise, (d, ρ)."""
    loss = float(own["own_loss"])
    pairs = zip(own["own_a"], own["own_b"], strict=True)
    return np.array(
        [[unlearn.rate_for_rise(float(a), float(b), loss, rho) for rho in rises] for a, b in pairs]
    )


def _expand(
    c: Context,
    linear: linearised.LinearPass,
    placed: Any,
    along: tree.Flat,
    corpus: examples.Corpus,
) -> linearised.Expansion:
    """The expansion of tracks; their padding counts."""
    seen = examples.unmasked(corpus.examples)
    return linearised.expand(linear, placed, along, seen, corpus.ids)


def _own_losses(c: Context, at: Level, step: tree.Flat, query: str) -> np.ndarray:
    """The query's own losses with the parameters moved, on the draws of `_own`."""
    made = c.passes.sweep._replace(
        root=keys.root(c.seed, keys.Domain.CALIBRATION), draws=c.plan.own_draws
    )
    moved, rest, _ = at.placed.sweep
    placed = sweep.place(made, moved, rest)
    one = seed.one_query(c, query)
    at_step = sweep.displaced(made, placed, step)
    return sweep.losses(made, placed, at_step, one.examples, one.ids).draws[0]
