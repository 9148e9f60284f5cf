"""What becomes of a claim follows from the figures: each is turned both ways by them."""

import itertools

import numpy as np
import pytest

from tda_jax.evaluation import controls_calibration_claims as more
from tda_jax.evaluation import controls_claims as claims
from tda_jax.evaluation import controls_verdict
from tda_jax.evaluation.controls_scores import CONSTANT, METHODS, rise_name, step_names
from tda_jax.evaluation.records import Key, Record, Table
from tda_jax.evaluation.verdicts import FAILS, HOLDS, OPEN
from tda_jax.keys import BINS
from tests.evaluation import few_parameters

PLAN = few_parameters.plan(seeds=(0, 1, 2), groups=("cross_attention_kv", "transformer"))
RISE = rise_name(PLAN.rise)
FIRST, LAST = step_names(PLAN)[1], step_names(PLAN)[-1]


def everything():
    """Every figure that a claim reads."""
    steps, groups = step_names(PLAN), PLAN.groups
    methods = [*METHODS, "exact, standardised", "exact, ratio", "exact, minus common"]
    metrics = ["self_rank", "relatives", "captions", "decoys", "unrelated", "own_members"]
    metrics += ["decoy_relatives", "agreement", "positive_members", "positive_decoys", "own_rise"]
    for metric, method, group, step in itertools.product(metrics, methods, groups, steps):
        yield Key("steps", metric, method, group, step)
    for group, step in itertools.product(groups, steps):
        yield Key("steps", "rate", "", group, step)
    for method, metric in itertools.product(CONSTANT, metrics):
        yield Key("steps", metric, method)
    for n, group, step in itertools.product((20, 80), groups, steps):
        yield Key("probes", "agreement", f"{n} probes", group, step)
    levels = [str(updates) for updates in PLAN.updates]
    for level, rho, method, metric in itertools.product(
        levels,
        PLAN.rises,
        ("quadratic", "with the second-order term"),
        ("spearman", "top10", "relative_error"),
    ):
        yield Key("quadratic", metric, method, groups[0], rise_name(rho), level)
    for b, group in itertools.product(range(BINS), groups):
        yield Key("bins", f"loss_bin{b}", "loss before", level=levels[-1])
        yield Key("bins", f"rise_bin{b}", "exact", group, RISE)
    for n, method in itertools.product(PLAN.draw_counts, ("linearised", "odd", "even")):
        yield Key("draws", "repeated", method, groups[0], str(n))
    yield Key("draws", "naive_error", "linearised", groups[0])
    for n, method in itertools.product(
        PLAN.query_draw_counts,
        ("linearised, b as taken", "linearised, b from halves", "even, b as taken"),
    ):
        yield Key("query_draws", "repeated", method, groups[0], str(n))
        yield Key("query_draws", "bias", method, groups[0], str(n))
    for group, metric in itertools.product(groups, ("spearman", "top10")):
        yield Key("half", metric, "linearised", group)


def table(*changes, seeds=3):
    """Every figure at 0.5, and those that changes (parts of a key, value) name at theirs."""
    records = []
    for key in dict.fromkeys(everything()):
        value = 0.5
        for parts, other in changes:
            if all(getattr(key, name) == part for name, part in parts.items()):
                value = other
        spread = np.linspace(-0.001, 0.001, seeds) if seeds > 1 else [0.0]
        records += [Record(key, seed, "q", value + d) for seed, d in enumerate(spread)]
    return Table(records)


def at(value, metric, method="exact", **parts):
    return {"metric": metric, "method": method, **parts}, value


KV = {"group": "cross_attention_kv"}
SELF = at(1.0, "self_rank")
SHARES = [at(0.0, f"loss_bin{b}", "loss before") for b in range(BINS)]
SHARES += [at(0.0, f"rise_bin{b}") for b in range(BINS)]

CASES = [
    (claims.self_rank, [SELF, at(0.9, "relatives", step=LAST)], [SELF]),
    (claims.self_rank, [SELF, at(0.1, "captions", step=LAST)], [at(20.0, "self_rank", step=LAST)]),
    (claims.quadratic, [at(0.999, "agreement", "linearised")], []),
    (claims.even_part, [at(0.99, "relatives", "even")], [at(0.99, "relatives", "even", **KV)]),
    (
        claims.captions_of_keys,
        [at(0.99, "captions", "even")],
        [at(0.99, "captions", "even"), at(0.9, "relatives", "even")],
    ),
    (
        claims.both_of_transformer,
        [at(0.9, "captions", "even"), at(0.9, "relatives", "even")],
        [at(0.9, "captions", "even")],
    ),
    (
        claims.probes,
        [at(0.8, "agreement", "20 probes"), at(0.95, "agreement", "80 probes")],
        [at(0.8, "agreement", "20 probes"), at(0.8, "agreement", "80 probes")],
    ),
    (claims.stand_in, [at(0.999, "spearman", "quadratic")], []),
    (
        claims.left_out_term,
        [at(0.1, "relative_error", "with the second-order term")],
        [at(0.4, "relative_error", "with the second-order term")],
    ),
    (claims.one_rate, [at(50.0, "own_rise", "linearised", **KV)], []),
    (claims.scale_free, [at(0.1, "own_rise")], [at(0.1, "own_rise", **KV)]),
    (claims.equal_rise, [], [at(0.9, "relatives", **KV)]),
    (more.other_way, [], [at(0.7, "captions", "reversed", step=LAST)]),
    (more.random_signs, [], [at(0.9, "captions", "scrambled", step=LAST)]),
    (more.zero, [at(0.95, "positive_members")], []),
    (
        more.concentration,
        [*SHARES, at(0.6, "loss_bin0", "loss before"), at(0.3, "rise_bin3"), at(0.3, "rise_bin7")],
        [*SHARES, at(0.6, "loss_bin0", "loss before"), at(0.3, "rise_bin3")],
    ),
    (more.repeats, [], [at(0.9, "repeated", "linearised")]),
    (
        more.naive_error,
        [at(1.4, "naive_error", "linearised")],
        [at(1.1, "naive_error", "linearised")],
    ),
    (more.biased_b, [], [at(0.01, "bias", "even, b as taken")]),
    (more.members_first, [at(0.7, "decoys", **KV)], [at(0.4, "decoys")]),
    (
        more.not_membership_alone,
        [at(0.7, "decoys", "exact, minus common", **KV)],
        [at(0.4, "decoys", "exact, minus common"), at(0.9, "decoys")],
    ),
    (more.blind_to_members, [], [at(0.7, "decoys", "latent similarity")]),
    (
        more.similarity_suffices,
        [at(0.9, "relatives", "latent similarity")],
        [at(0.9, "relatives", "latent similarity"), at(0.95, "relatives", **KV)],
    ),
    (more.half_precision, [at(0.999, "spearman", "linearised")], []),
]


@pytest.mark.parametrize(("claim", "holding", "failing"), CASES)
def test_a_claim_is_decided_by_its_figures(claim, holding, failing):
    held, failed = (claim(table(*changes), PLAN) for changes in (holding, failing))
    assert (held.verdict, failed.verdict) == (HOLDS, FAILS)
    assert held.figures != failed.figures
    assert held.claim == failed.claim


@pytest.mark.parametrize(("claim", "holding", "failing"), CASES)
def test_one_seed_decides_nothing(claim, holding, failing):
    if claim is not claims.self_rank:  # a rate that does not find the query needs no interval
        assert claim(table(*failing, seeds=1), PLAN).verdict == OPEN
    assert claim(table(*holding, seeds=1), PLAN).verdict == OPEN


def test_every_claim_is_tried():
    tried = {claim for claim, _, _ in CASES} | {more.open_question}
    assert tried == {*claims.CLAIMS, *more.CLAIMS}


def test_what_is_true_is_never_decided_and_its_figures_say_what_leads():
    low, high = (
        more.open_question(table(at(value, "relatives", "even")), PLAN) for value in (0.1, 0.9)
    )
    assert low.verdict == high.verdict == OPEN
    leads = "relatives, transformer, highest part: "
    assert any(f.startswith(leads + "even") for f in high.figures)
    assert not any(f.startswith(leads + "even") for f in low.figures)


def test_losses_that_are_not_finite_are_named():
    keys = [Key("steps", "not_finite", "exact", group, LAST) for group in PLAN.groups]
    found = Table(
        [Record(key, 0, "q", share) for key, share in zip(keys, (0.0, 0.25), strict=True)]
    )
    lines = controls_verdict.not_finite(found)
    assert lines == [f"transformer at {LAST}: 0.250 of the tracks"]
    assert lines[0] in controls_verdict.text([], [], lines, PLAN)


def test_the_text_counts_the_verdicts_and_names_the_defaults():
    found = controls_verdict.findings(table(), PLAN)
    text = controls_verdict.text(found, controls_verdict.provisional(table(), PLAN), [], PLAN)
    for verdict in (HOLDS, FAILS, OPEN):
        assert f"{sum(f.verdict == verdict for f in found)} {verdict}" in text
    assert text.count("\n## ") == len(found) + 1
    assert "none of those tried" in text
    assert "Left out" not in text
    stands = [at(0.995, "spearman", "quadratic"), at(1.0, "top10", "quadratic")]
    short = [*stands, at(0.9, "spearman", "quadratic", step=rise_name(0.1), level="4")]
    for changes, reach in ((stands, "0.1"), (short, "0.03")):
        lines = controls_verdict.provisional(table(*changes), PLAN)
        assert lines[0].endswith(f"cross_attention_kv: {reach}")
