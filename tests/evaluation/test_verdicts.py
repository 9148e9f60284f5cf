import numpy as np
import pytest

from tda_jax.evaluation import verdicts
from tda_jax.evaluation.ranking import Interval, mean_interval
from tda_jax.evaluation.verdicts import FAILS, HOLDS, OPEN, Evidence, decided

ONE_SEED = Interval(0.9, np.nan, np.nan, 1)


def interval(low, high):
    return Interval((low + high) / 2, low, high, 3)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (interval(0.6, 0.8), HOLDS),
        (interval(0.2, 0.4), FAILS),
        (interval(0.4, 0.6), OPEN),
        (interval(0.5, 0.6), OPEN),
        (ONE_SEED, OPEN),
        (None, OPEN),
    ],
)
def test_the_whole_interval_decides(found, verdict):
    opposite = {HOLDS: FAILS, FAILS: HOLDS, OPEN: OPEN}[verdict]
    assert decided(verdicts.above(found, 0.5)) == verdict
    assert decided(verdicts.below(found, 0.5)) == opposite


@pytest.mark.parametrize("values", [[0.1, 0.5, 0.3], [0.2, 0.25, 0.1, 0.21], [1.0, -1.0]])
def test_evidence_ends_where_the_interval_does(values):
    found = mean_interval(np.array(values))
    assert verdicts.above(found, found.low).holds == pytest.approx(0.025, rel=1e-6)
    assert verdicts.above(found, found.high).fails == pytest.approx(0.025, rel=1e-6)
    assert verdicts.above(found, found.mean) == pytest.approx((0.5, 0.5))


def test_a_spread_of_nothing_decides_all_but_the_threshold_itself():
    same = Interval(0.5, 0.5, 0.5, 3)
    assert decided(verdicts.above(same, 0.4)) == HOLDS
    assert decided(verdicts.above(same, 0.6)) == FAILS
    assert decided(verdicts.above(same, 0.5)) == OPEN


def test_within_two_bounds():
    assert decided(verdicts.within(interval(0.4, 0.6), 0.3, 0.7)) == HOLDS
    assert decided(verdicts.within(interval(0.4, 0.6), 0.5, 0.7)) == OPEN
    assert decided(verdicts.within(interval(0.85, 0.9), 0.3, 0.7)) == FAILS


def test_all_and_any():
    yes, no, open_ = Evidence(0.001, 1.0), Evidence(1.0, 0.001), Evidence(0.3, 0.7)
    assert decided(verdicts.all_of([yes, yes])) == HOLDS
    assert decided(verdicts.all_of([yes, open_])) == OPEN
    assert decided(verdicts.all_of([open_, no, yes])) == FAILS
    assert decided(verdicts.all_of([])) == OPEN
    assert decided(verdicts.any_of([no, open_, yes])) == HOLDS
    assert decided(verdicts.any_of([no, open_])) == OPEN
    assert decided(verdicts.any_of([no, no])) == FAILS


def test_what_is_sought_in_many_is_asked_for_more():
    one = Evidence(0.02, 1.0)
    assert decided(verdicts.any_of([one])) == HOLDS
    assert decided(verdicts.any_of([one, verdicts.NOTHING])) == OPEN
    assert decided(verdicts.all_of([one, one])) == HOLDS  # where all must, each is asked once


@pytest.mark.slow
def test_luck_is_found_no_more_often_than_is_said():
    # Five groups, three seeds, nothing there: a claim sought in any of them.
    rng = np.random.default_rng(0)
    found = [
        decided(verdicts.any_of(verdicts.above(mean_interval(x), 0.0) for x in y))
        for y in rng.standard_normal((2000, 5, 3))
    ]
    assert found.count(HOLDS) / 2000 < 0.035  # 0.025, and three standard errors


def test_figures_are_shown_with_what_is_known_of_them():
    assert verdicts.shown(interval(0.25, 0.75)) == "0.50 [0.25, 0.75]"
    assert verdicts.shown(ONE_SEED, 1) == "0.9 (one seed)"
    assert verdicts.shown(None) == "none"
