"""The claims about unlearning scores that the controls can test, on their figures.

Each function takes the table and the plan and gives one finding; the thresholds are named here.
What a claim says is fixed, what becomes of it follows from the intervals alone.
"""

import itertools
from collections.abc import Callable

import numpy as np

from tda_jax.evaluation import verdicts
from tda_jax.evaluation.controls_plan import Plan
from tda_jax.evaluation.controls_scores import rise_name, step_names
from tda_jax.evaluation.ranking import Interval
from tda_jax.evaluation.records import Key, Table, interval_of
from tda_jax.evaluation.verdicts import Finding, above, all_of, any_of, below, decided, shown

Claim = Callable[[Table, Plan], Finding]

SELF_FOUND = 1.5  # a mean self rank up to it: the query finds itself
MATTERS = 0.1  # a difference of areas under the curve that matters
FOUND = 0.75  # an area under the curve that finds a set
PERFECT = 0.95
AGREES = 0.99  # a rank correlation of scores that stand for each other
TOP_AGREES = 0.9
CARRIES_KV = "cross_attention_kv"


def step_key(metric: str, method: str, group: str = "", step: str = "") -> Key:
    """A figure of the study of steps."""
    return Key("steps", metric, method, group, step)


def self_rank(table: Table, plan: Plan) -> Finding:
    """Claim 1: at the smallest and largest raw rate that finds the query itself."""
    claim = (
        f"Self rank does not tell good learning rates from bad: between raw rates with a self rank "
        f"up to {SELF_FOUND}, the AUC of relatives or caption-mates changes by over {MATTERS} in "
        "some group"
    )
    found, figures = [], []
    for group in plan.groups:
        names, open_ones = _finding_itself(table, plan, group)
        if len(names) < 2:
            found.append(verdicts.NOTHING if open_ones else verdicts.REFUTED)
            figures.append(
                f"{group}: {len(names)} raw rates find the query, {open_ones} more may; with two "
                "or more, self rank does not tell between them"
            )
            continue
        for metric in ("relatives", "captions"):
            keys = [step_key(metric, "exact", group, name) for name in (names[-1], names[0])]
            change = table.difference(*keys)
            found.append(any_of([above(change, MATTERS), below(change, -MATTERS)]))
            ends = " and ".join(f"{shown(table.interval(k))} at {k.step}" for k in keys[::-1])
            figures.append(f"{group}: {metric} {ends}; change {shown(change)}")
    return Finding("1", claim, decided(any_of(found)), tuple(figures))


def _finding_itself(table: Table, plan: Plan, group: str) -> tuple[list[str], int]:
    """The raw rates at which the query finds itself, and of how many that is not decided."""
    names = step_names(plan)[1:]
    ranks = [table.interval(step_key("self_rank", "exact", group, name)) for name in names]
    each = [decided(below(rank, SELF_FOUND)) for rank in ranks]
    found = [name for name, verdict in zip(names, each, strict=True) if verdict == verdicts.HOLDS]
    return found, each.count(verdicts.OPEN)


def quadratic(table: Table, plan: Plan) -> Finding:
    """Claim 2, first half: every group, all tracks, at ρ."""
    step = rise_name(plan.rise)
    claim = (
        f"The score is nearly quadratic in the learning rate: at {step} the rank correlation of "
        f"lr·a + lr²·b with the exact score, over members and decoys, is above {AGREES} in every "
        "group"
    )
    found = {g: table.interval(step_key("agreement", "linearised", g, step)) for g in plan.groups}
    figures = [f"{group}: {shown(i, 3)}" for group, i in found.items()]
    for name in step_names(plan)[1:]:
        each = (table.interval(step_key("agreement", "linearised", g, name)) for g in plan.groups)
        figures.append(f"at {name}, same order: " + ", ".join(shown(i, 3) for i in each))
    verdict = decided(all_of(above(i, AGREES) for i in found.values()))
    return Finding("2a", claim, verdict, tuple(figures))


def even_part(table: Table, plan: Plan) -> Finding:
    """Claim 2, second half: b alone, with captions crossed."""
    claim = f"The even part b alone finds all relatives: its AUC is above {PERFECT} in every group"
    step, found, figures = rise_name(plan.rise), [], []
    for group in plan.groups:
        pair = [table.interval(step_key(m, "even", group, step)) for m in ("relatives", "captions")]
        found.append(above(pair[0], PERFECT))
        figures.append(f"{group}: relatives {shown(pair[0])}, caption-mates {shown(pair[1])}")
    return Finding("2b", claim, decided(all_of(found)), tuple(figures))


def captions_of_keys(table: Table, plan: Plan) -> Finding:
    """The second look: what keys and values of cross-attention retrieve."""
    claim = (
        f"With {CARRIES_KV} the even part retrieves captions (AUC above {PERFECT}) and no works "
        f"(below {FOUND})"
    )
    return _work_and_caption(table, plan, "2c", claim, CARRIES_KV, (PERFECT, None), (None, FOUND))


def both_of_transformer(table: Table, plan: Plan) -> Finding:
    """The second look: what all transformer layers retrieve."""
    claim = f"With all transformer layers the even part finds works and captions (above {FOUND})"
    return _work_and_caption(table, plan, "2d", claim, "transformer", (FOUND, None), (FOUND, None))


def _work_and_caption(
    table: Table,
    plan: Plan,
    number: str,
    claim: str,
    group: str,
    caption: tuple[float | None, float | None],
    work: tuple[float | None, float | None],
) -> Finding:
    """Whether captions and works are within (above, below) bounds for the even part of a group."""
    if group not in plan.groups:
        return Finding(number, claim, verdicts.OPEN, (f"{group} was not moved",))
    found, figures = [], []
    for metric, (low, high) in (("captions", caption), ("relatives", work)):
        i = table.interval(step_key(metric, "even", group, rise_name(plan.rise)))
        found += [above(i, low)] if low is not None else []
        found += [below(i, high)] if high is not None else []
        figures.append(f"{metric}: {shown(i)}")
    return Finding(number, claim, decided(all_of(found)), tuple(figures))


def probes(table: Table, plan: Plan) -> Finding:
    """Claim 3: the even part from random output probes."""
    few, many = (f"{k * plan.draws.count} probes" for k in (1, 4))
    bounds = {few: 0.7, many: 0.9}
    step = rise_name(plan.rise)
    claim = (
        f"b can be estimated from random output probes: at {step} the rank correlation with the "
        f"exact score is above {bounds[few]} with {few} a track and above {bounds[many]} with "
        f"{many}, in every group"
    )
    found, figures = [], []
    for group in plan.groups:
        keys = {m: Key("probes", "agreement", m, group, step) for m in bounds}
        pair = {method: table.interval(key) for method, key in keys.items()}
        found += [above(i, bounds[method]) for method, i in pair.items()]
        without = table.interval(step_key("agreement", "odd", group, step))
        figures.append(
            f"{group}: {shown(pair[few])} and {shown(pair[many])}; without any b {shown(without)}"
        )
    return Finding("3", claim, decided(all_of(found)), tuple(figures))


def stand_in(table: Table, plan: Plan) -> Finding:
    """Claim 4: up to which step the linearised pass stands for exact scores."""
    claim = (
        f"The linearised pass stands for exact scores up to {rise_name(plan.rise)} at every loss "
        f"level (rank correlation above {AGREES}, members)"
    )
    found, figures = [], []
    for updates in plan.updates:
        for group in plan.studied_groups:
            keys = {
                rho: Key("quadratic", "spearman", "quadratic", group, rise_name(rho), f"{updates}")
                for rho in plan.rises
            }
            found.append(above(table.interval(keys[plan.rise]), AGREES))
            reach = reaches(table, list(keys.values())) or "no rise tried"
            each = ", ".join(f"{rho:g}: {shown(table.interval(k), 3)}" for rho, k in keys.items())
            figures.append(f"{updates} updates, {group}: in the mean up to {reach} ({each})")
    figures.append(f"'up to' takes a mean correlation from {AGREES} and top 10 from {TOP_AGREES}")
    return Finding("4a", claim, decided(all_of(found)), tuple(figures))


def reaches(table: Table, keys: list[Key]) -> str:
    """The last step of a row of rising ones, all of which stand for exact scores; "" if none."""
    standing = list(itertools.takewhile(lambda key: _stands(table, key), keys))
    return standing[-1].step if standing else ""


def _stands(table: Table, key: Key) -> bool:
    correlation, top = table.interval(key), table.interval(key._replace(metric="top10"))
    top_fine = top is None or top.mean >= TOP_AGREES  # too few tracks for a top 10
    return correlation is not None and correlation.mean >= AGREES and top_fine


def left_out_term(table: Table, plan: Plan) -> Finding:
    """The second look: the error comes from the second-order term that the pass leaves out."""
    step = rise_name(plan.rise)
    claim = f"At {step} the left-out second-order term makes up most of the quadratic's error"
    found, figures = [], []
    for updates in plan.updates:
        for group in plan.studied_groups:
            key = Key("quadratic", "relative_error", "quadratic", group, step, f"{updates}")
            other = key._replace(method="with the second-order term")
            share = interval_of(1 - table.seeds(other) / table.seeds(key))
            found.append(above(share, 0.5))
            pair = f"{shown(table.interval(key), 3)} and {shown(table.interval(other), 3)}"
            figures.append(
                f"{updates} updates, {group}: median relative error {pair} with it; "
                f"it makes up a share of {shown(share)}"
            )
    return Finding("4b", claim, decided(all_of(found)), tuple(figures))


def one_rate(table: Table, plan: Plan) -> Finding:
    """Claim 5, first half."""
    claim = "One raw learning rate does not fit all groups: the predicted rise differs over tenfold"
    found, figures = [], []
    for name in step_names(plan)[1:]:
        keys = {g: step_key("own_rise", "linearised", g, name) for g in plan.groups}
        values = np.stack([table.seeds(key) for key in keys.values()])
        ratio = interval_of(np.log10(values.max(0) / values.min(0)))
        found.append(above(ratio, 1.0))
        each = ", ".join(f"{g} {table.seeds(key).mean():.2g}" for g, key in keys.items())
        figures.append(f"{name}: predicted rise {each}; log10 of the ratio {shown(ratio)}")
    return Finding("5a", claim, decided(all_of(found)), tuple(figures))


def scale_free(table: Table, plan: Plan) -> Finding:
    """Claim 5, second half: what the query's own loss then does."""
    step = rise_name(plan.rise)
    claim = f"A scale-free step does: at {step} the query's own loss rises by half to twice of it"
    found, figures = [], []
    for group in plan.groups:
        i = table.interval(step_key("own_rise", "exact", group, step))
        found.append(verdicts.within(i, plan.rise / 2, plan.rise * 2))
        rate = table.seeds(step_key("rate", "", group, step)).mean()
        figures.append(f"{group}: {shown(i, 3)} at a mean learning rate of {rate:.2g}")
    return Finding("5b", claim, decided(all_of(found)), tuple(figures))


def equal_rise(table: Table, plan: Plan) -> Finding:
    """The second look: the collapse of the larger groups was one of step size."""
    step, first = rise_name(plan.rise), plan.groups[0]
    claim = (
        f"Compared at an equal rise the larger groups do no worse: at {step} their relatives' AUC "
        f"is not below that of {first} by more than 0.05"
    )
    found, figures = [], []
    for group in plan.groups:
        keys = [step_key("relatives", "exact", group, name) for name in step_names(plan)]
        each = ", ".join(f"{k.step}: {shown(table.interval(k))}" for k in keys)
        ahead = table.difference(keys[0], keys[0]._replace(group=first))
        if group != first:
            found.append(above(ahead, -0.05))
            each += f"; ahead at {step} by {shown(ahead)}"
        figures.append(f"{group}: {each}")
    return Finding("5c", claim, decided(all_of(found)), tuple(figures))


def best(intervals: dict[str, Interval | None]) -> str:
    """The name with the highest mean."""
    known = {name: i.mean for name, i in intervals.items() if i is not None}
    return max(known, key=known.__getitem__) if known else "none"


CLAIMS: tuple[Claim, ...] = (
    self_rank,
    quadratic,
    even_part,
    captions_of_keys,
    both_of_transformer,
    probes,
    stand_in,
    left_out_term,
    one_rate,
    scale_free,
    equal_rise,
)
