"""The other claims that the controls can test: signs, zero, decoys, noise, half precision."""

from collections.abc import Iterable

import numpy as np

from tda_jax.attribution.scores import WEIGHTINGS
from tda_jax.evaluation import verdicts
from tda_jax.evaluation.controls_claims import (
    AGREES,
    CARRIES_KV,
    FOUND,
    MATTERS,
    Claim,
    best,
    step_key,
)
from tda_jax.evaluation.controls_plan import Plan
from tda_jax.evaluation.controls_scores import rise_name, step_names
from tda_jax.evaluation.ranking import Interval
from tda_jax.evaluation.records import Key, Table, interval_of
from tda_jax.evaluation.verdicts import Finding, above, all_of, any_of, below, decided, shown
from tda_jax.keys import BINS

_MOSTLY = 0.9  # a share of tracks that is almost all of them
_REPEATS = 0.8  # a rank correlation of two independent sets of draws


def open_question(table: Table, plan: Plan) -> Finding:
    """Claim 6: which part, group and weighting is true."""
    claim = "Which part, group and weighting of timesteps gives the true influence"
    step, figures = rise_name(plan.rise), []
    for metric in ("relatives", "own_members"):
        for name, methods in (
            ("part", ("exact", "odd", "even")),
            ("weighting", ("exact", *(f"exact, {w}" for w in WEIGHTINGS[1:]))),
        ):
            for group in plan.groups:
                found = {m: table.interval(step_key(metric, m, group, step)) for m in methods}
                each = ", ".join(f"{m} {shown(i)}" for m, i in found.items())
                figures.append(f"{metric}, {group}, highest {name}: {best(found)} ({each})")
        found = {g: table.interval(step_key(metric, "exact", g, step)) for g in plan.groups}
        figures.append(f"{metric}, highest group for exact scores: {best(found)}")
    figures.append(
        "these rank what was found of known relations; only retraining says what is true"
    )
    return Finding("6", claim, verdicts.OPEN, tuple(figures))


def other_way(table: Table, plan: Plan) -> Finding:
    """The second look: the step the other way."""
    last = step_names(plan)[-1]
    claim = (
        f"The step the other way, -lr, ranks caption-mates as well: with {CARRIES_KV} its AUC is "
        f"within {MATTERS} of that of +lr at {rise_name(plan.rise)} and at {last}"
    )
    found, figures = [], []
    for group in plan.groups:
        for step in (rise_name(plan.rise), last):
            keys = [step_key("captions", m, group, step) for m in ("reversed", "linearised")]
            change = table.difference(*keys)
            if group == CARRIES_KV:
                found.append(verdicts.within(change, -MATTERS, MATTERS))
            pair = " and ".join(shown(table.interval(k)) for k in keys)
            figures.append(f"{group}, {step}: captions {pair}; difference {shown(change)}")
    return Finding("7a", claim, decided(all_of(found)), tuple(figures))


def random_signs(table: Table, plan: Plan) -> Finding:
    """The second look: scrambled gradient signs."""
    last = step_names(plan)[-1]
    claim = (
        f"Scrambled gradient signs destroy it: with {CARRIES_KV} caption-mates' AUC is then below "
        f"{FOUND} at {rise_name(plan.rise)} and at {last}"
    )
    found, figures = [], []
    for group in plan.groups:
        for step in step_names(plan):
            keys = [step_key("captions", m, group, step) for m in ("scrambled", "linearised")]
            if group == CARRIES_KV and step in (rise_name(plan.rise), last):
                found.append(below(table.interval(keys[0]), FOUND))
            pair = [shown(table.interval(k)) for k in keys]
            figures.append(f"{group}, {step}: captions {pair[0]} scrambled, {pair[1]} not")
    return Finding("7b", claim, decided(all_of(found)), tuple(figures))


def zero(table: Table, plan: Plan) -> Finding:
    """The second look: almost every track scores above zero."""
    claim = f"Zero is not neutral: over {_MOSTLY} of the members score above it at every step"
    found, figures = [], []
    for step in step_names(plan):
        for group in plan.groups:
            keys = [
                step_key(f"positive_{who}", "exact", group, step) for who in ("members", "decoys")
            ]
            pair = [table.interval(key) for key in keys]
            found.append(above(pair[0], _MOSTLY))
            figures.append(f"{step}, {group}: members {shown(pair[0])}, decoys {shown(pair[1])}")
    return Finding("8", claim, decided(all_of(found)), tuple(figures))


def concentration(table: Table, plan: Plan) -> Finding:
    """The second look: few timesteps carry most."""
    level, step = str(plan.updates[-1]), rise_name(plan.rise)
    claim = (
        "A tenth of the schedule carries over half of the members' loss, and a fifth over 0.4 of "
        f"|Δτ| at {step}"
    )
    loss = _largest(
        table, [Key("bins", f"loss_bin{b}", "loss before", level=level) for b in range(BINS)], 1
    )
    found, figures = [above(loss, 0.5)], [f"loss, largest bin: {shown(loss)}"]
    for group in plan.groups:
        keys = [Key("bins", f"rise_bin{b}", "exact", group, step) for b in range(BINS)]
        rise = _largest(table, keys, 2)
        found.append(above(rise, 0.4))
        figures.append(f"|Δτ|, two largest bins, {group}: {shown(rise)}")
    return Finding("9", claim, decided(all_of(found)), tuple(figures))


def _largest(table: Table, keys: Iterable[Key], count: int) -> Interval | None:
    """The share of the largest bins, by seed."""
    values = np.stack([table.seeds(key) for key in keys])
    return interval_of(np.sort(values, axis=0)[-count:].sum(0))


def repeats(table: Table, plan: Plan) -> Finding:
    """The second look: how scores of few draws repeat."""
    wanted = plan.draws.count
    count = wanted if wanted in plan.draw_counts else plan.draw_counts[0]
    claim = (
        f"Scores of {count} draws a track repeat poorly: the rank correlation of independent sets "
        f"is below {_REPEATS}"
    )
    found, figures = [], []
    for group in plan.studied_groups:
        for method in ("linearised", "odd", "even"):
            keys = {n: Key("draws", "repeated", method, group, str(n)) for n in plan.draw_counts}
            if method == "linearised":
                found.append(below(table.interval(keys[count]), _REPEATS))
            each = ", ".join(f"{n}: {shown(table.interval(k))}" for n, k in keys.items())
            figures.append(f"{group}, {method}: {each}")
    return Finding("10", claim, decided(all_of(found)), tuple(figures))


def naive_error(table: Table, plan: Plan) -> Finding:
    """The second look: the spread of all draws as a standard error."""
    claim = "A standard error from the spread of all draws is too large, by more than a fifth"
    keys = {g: Key("draws", "naive_error", "linearised", g) for g in plan.studied_groups}
    found = {group: table.interval(key) for group, key in keys.items()}
    figures = [f"{group}: {shown(i)} times that within strata" for group, i in found.items()]
    verdict = decided(all_of(above(i, 1.2) for i in found.values()))
    return Finding("11", claim, verdict, tuple(figures))


def biased_b(table: Table, plan: Plan) -> Finding:
    """The second look: noise in the query's gradient lifts b."""
    counts, figures, found = plan.query_draw_counts, [], []
    claim = f"Noise in the query's gradient lifts b, by more than a twentieth at {counts[0]} draws"
    for group in plan.studied_groups:
        bias = {n: Key("query_draws", "bias", "even, b as taken", group, str(n)) for n in counts}
        found.append(above(table.interval(bias[counts[0]]), 0.05))
        each = ", ".join(f"{n}: {shown(table.interval(k), 3)}" for n, k in bias.items())
        figures.append(f"{group}: share by which b is lifted, {each}")
        for method in ("linearised, b as taken", "linearised, b from halves"):
            keys = {n: Key("query_draws", "repeated", method, group, str(n)) for n in counts}
            each = ", ".join(f"{n}: {shown(table.interval(k), 3)}" for n, k in keys.items())
            figures.append(f"{group}: scores repeat over query draws, {method}, {each}")
    return Finding("12", claim, decided(all_of(found)), tuple(figures))


def members_first(table: Table, plan: Plan) -> Finding:
    """The definition: a member must outrank an equally similar non-member."""
    claim = (
        f"Exact scores at {rise_name(plan.rise)} put members of the query's work above equally "
        "similar decoys (AUC above 0.5) in some group"
    )
    found, figures = [], []
    for step in step_names(plan):
        for group in plan.groups:
            three = [
                table.interval(step_key(name, "exact", group, step))
                for name in ("decoys", "unrelated", "own_members")
            ]
            if step == rise_name(plan.rise):
                found.append(above(three[0], 0.5))
            figures.append(
                f"{step}, {group}: {shown(three[0])}; unrelated members above unrelated decoys "
                f"{shown(three[1])}, difference {shown(three[2])}"
            )
    return Finding("13a", claim, decided(any_of(found)), tuple(figures))


def not_membership_alone(table: Table, plan: Plan) -> Finding:
    """A control of the former: members rise more than decoys for any query."""
    method = "exact, minus common"
    claim = (
        f"That is more than membership: with what a track scores for other queries taken out, at "
        f"{rise_name(plan.rise)} members of the query's work are still above equally similar "
        "decoys in some group"
    )
    found, cells, figures = [], [], []
    for step in step_names(plan):
        for group in plan.groups:
            keys = [step_key(name, method, group, step) for name in ("decoys", "unrelated")]
            pair = [table.interval(key) for key in keys]
            ahead = above(pair[0], 0.5)
            found += [ahead] if step == rise_name(plan.rise) else []
            cells += [f"{group} at {step}"] if decided(ahead) == verdicts.HOLDS else []
            figures.append(f"{step}, {group}: {shown(pair[0])}, unrelated {shown(pair[1])}")
    tried = len(plan.groups) * len(step_names(plan))
    figures.append(f"above 0.5 with the whole interval in {len(cells)} of {tried}: {cells}")
    return Finding("13b", claim, decided(any_of(found)), tuple(figures))


def blind_to_members(table: Table, plan: Plan) -> Finding:
    """The definition: similarity cannot tell members from equally similar decoys."""
    like = step_key("decoys", "latent similarity")
    claim = f"Similarity cannot: its AUC in that comparison is within {MATTERS} of 0.5"
    found = table.interval(like)
    figures = [f"latent similarity: {shown(found)}"]
    figures += [
        f"{other}: {shown(table.interval(like._replace(method=other)))}"
        for other in ("length", "loudness", "loss before", "chance")
    ]
    verdict = decided(verdicts.within(found, 0.5 - MATTERS, 0.5 + MATTERS))
    return Finding("13c", claim, verdict, tuple(figures))


def similarity_suffices(table: Table, plan: Plan) -> Finding:
    """A control of the relatives' AUC itself."""
    step = rise_name(plan.rise)
    claim = (
        "Plain latent similarity finds relatives better than any group's exact scores at "
        f"{step}: their AUC alone proves no attribution"
    )
    like = step_key("relatives", "latent similarity")
    found, figures = [], [f"latent similarity: {shown(table.interval(like))}"]
    for group in plan.groups:
        key = step_key("relatives", "exact", group, step)
        ahead = table.difference(like, key)
        found.append(above(ahead, 0.0))
        other = shown(table.interval(step_key("decoy_relatives", "exact", group, step)))
        figures.append(
            f"{group}: {shown(table.interval(key))}, similarity ahead by {shown(ahead)}; among "
            f"decoys, which were not trained on, {other}"
        )
    return Finding("13d", claim, decided(all_of(found)), tuple(figures))


def half_precision(table: Table, plan: Plan) -> Finding:
    """The definition: half precision belongs to the derivative."""
    claim = f"The linearised pass in bfloat16 ranks as in float32: rank correlation above {AGREES}"
    found, figures = [], []
    for group in plan.groups:
        keys = [Key("half", metric, "linearised", group) for metric in ("spearman", "top10")]
        pair = [table.interval(key) for key in keys]
        found.append(above(pair[0], AGREES))
        figures.append(f"{group}: {shown(pair[0], 4)}, top 10 {shown(pair[1])}")
    return Finding("14", claim, decided(all_of(found)), tuple(figures))


CLAIMS: tuple[Claim, ...] = (
    open_question,
    other_way,
    random_signs,
    zero,
    concentration,
    repeats,
    naive_error,
    biased_b,
    members_first,
    not_membership_alone,
    blind_to_members,
    similarity_suffices,
    half_precision,
)
