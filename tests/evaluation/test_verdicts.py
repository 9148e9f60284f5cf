import numpy as np
import pytest

from tda_jax.evaluation import verdicts
from tda_jax.evaluation.ranking import Interval
from tda_jax.evaluation.verdicts import FAILS, HOLDS, OPEN

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
    assert verdicts.above(found, 0.5) == verdict
    assert verdicts.below(found, 0.5) == verdicts.negated(verdict)


def test_within_two_bounds():
    assert verdicts.within(interval(0.4, 0.6), 0.3, 0.7) == HOLDS
    assert verdicts.within(interval(0.4, 0.6), 0.5, 0.7) == OPEN
    assert verdicts.within(interval(0.8, 0.9), 0.3, 0.7) == FAILS


def test_all_and_any():
    assert verdicts.all_of([HOLDS, HOLDS]) == HOLDS
    assert verdicts.all_of([HOLDS, OPEN]) == OPEN
    assert verdicts.all_of([OPEN, FAILS, HOLDS]) == FAILS
    assert verdicts.all_of([]) == OPEN
    assert verdicts.any_of([FAILS, OPEN, HOLDS]) == HOLDS
    assert verdicts.any_of([FAILS, OPEN]) == OPEN
    assert verdicts.any_of([FAILS, FAILS]) == FAILS


def test_figures_are_shown_with_what_is_known_of_them():
    assert verdicts.shown(interval(0.25, 0.75)) == "0.50 [0.25, 0.75]"
    assert verdicts.shown(ONE_SEED, 1) == "0.9 (one seed)"
    assert verdicts.shown(None) == "none"
