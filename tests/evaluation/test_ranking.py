import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.errors import InputError
from tda_jax.evaluation.ranking import (
    auc,
    mean_interval,
    percentiles,
    ranks,
    spearman,
    top_overlap,
)

NAN = float("nan")
# Few values, so that ties are common.
TIED = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=2, max_size=12)


def array(values):
    return np.array(values, float)


def test_ranks_by_hand():
    np.testing.assert_array_equal(ranks(array([5, 7, NAN, 5, 1])), [2.5, 1.0, NAN, 2.5, 4.0])
    np.testing.assert_array_equal(
        percentiles(array([5, 7, NAN, 6, 1])), [100 / 3, 100, NAN, 200 / 3, 0]
    )
    np.testing.assert_array_equal(percentiles(array([3])), [100])
    assert ranks(array([])).shape == (0,)


@given(TIED)
def test_ranks_are_scipys_from_the_top(values):
    np.testing.assert_array_equal(ranks(array(values)), scipy.stats.rankdata(-array(values)))


@given(TIED, TIED)
def test_auc_is_a_plain_count_of_pairs(better, worse):
    wins = [1.0 if b > w else 0.5 if b == w else 0.0 for b in better for w in worse]
    expected = sum(wins) / len(wins)
    assert auc(array(better), array(worse)) == pytest.approx(expected)
    assert auc(array(worse), array(better)) == pytest.approx(1 - expected)
    assert auc(array([*better, NAN]), array([NAN, *worse])) == pytest.approx(expected)


def test_auc_of_nothing_is_nan():
    assert np.isnan(auc(array([]), array([1])))
    assert np.isnan(auc(array([1]), array([NAN])))


@given(st.integers(0, 999), st.booleans())
def test_spearman_is_scipys(seed, tied):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 20))
    if tied:
        x, y = np.round(x), np.round(y)
    x[3], y[5] = NAN, NAN
    expected = scipy.stats.spearmanr(x, y, nan_policy="omit").statistic
    assert spearman(x, y) == pytest.approx(expected)


def test_spearman_of_ties_or_of_nothing_is_nan():
    assert np.isnan(spearman(array([1, 1, 1]), array([1, 2, 3])))
    assert np.isnan(spearman(array([1, NAN, 3]), array([NAN, 2, 3])))
    assert spearman(array([1, 2, 4]), array([1, 8, 9])) == pytest.approx(1.0)


def test_top_overlap_by_hand():
    x, y = array([9, 8, 7, 1, NAN]), array([9, 1, 8, 7, 10])
    assert top_overlap(x, y, 1) == 1.0
    assert top_overlap(x, y, 2) == 0.5
    assert top_overlap(x, y, 3) == pytest.approx(2 / 3)
    assert top_overlap(x, y, 4) == 1.0


def test_ties_do_not_pass_for_agreement():
    flat, steep = np.zeros(10), np.arange(10.0)
    assert top_overlap(flat, flat, 3) == pytest.approx(0.3)
    assert top_overlap(flat, steep, 3) == pytest.approx(0.3)
    # Sure of one of two places; the other is one of three alike.
    assert top_overlap(array([5, 4, 4, 4, 1]), array([9, 8, 1, 2, 3]), 2) == pytest.approx(
        (1 + 1 / 3) / 2
    )


@settings(deadline=None)
@given(st.integers(0, 999), st.integers(1, 6))
def test_top_overlap_is_the_mean_over_random_tie_breaks(seed, k):
    rng = np.random.default_rng(seed)
    x, y = np.round(rng.normal(size=(2, 6)))
    shares = []
    for _ in range(2000):
        tops = [set(np.lexsort((rng.random(6), -v))[:k]) for v in (x, y)]
        shares.append(len(tops[0] & tops[1]) / k)
    assert top_overlap(x, y, k) == pytest.approx(np.mean(shares), abs=0.06)


@pytest.mark.parametrize("k", [0, 5])
def test_a_top_that_is_not_there_is_refused(k):
    with pytest.raises(InputError, match=rf"top {k} of 4 scores; give k in 1 .. 4"):
        top_overlap(array([1, 2, 3, 4, NAN]), array([1, 2, 3, 4, 5]), k)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10, 31, 200])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_interval_is_students(count, confidence):
    values = np.random.default_rng(count).normal(size=count)
    mean, error = values.mean(), values.std(ddof=1) / np.sqrt(count)
    low, high = scipy.stats.t.interval(confidence, count - 1, mean, error)
    result = mean_interval(array([*values, NAN]), confidence)
    assert result == pytest.approx((mean, low, high, count), rel=1e-9)


def test_an_interval_over_three_seeds_covers_the_truth():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(4000):
        result = mean_interval(rng.normal(size=3))
        inside += result.low < 0 < result.high
    assert inside / 4000 == pytest.approx(0.95, abs=0.012)


def test_one_seed_has_no_interval_and_none_no_mean():
    result = mean_interval(array([3, NAN]))
    assert (result.mean, result.count) == (3.0, 1)
    assert np.isnan([result.low, result.high]).all()
    with pytest.raises(InputError, match="a mean of no values"):
        mean_interval(array([NAN]))
    with pytest.raises(InputError, match="confidence = 95"):
        mean_interval(array([1, 2]), 95.0)
