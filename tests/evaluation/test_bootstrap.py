import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.errors import InputError
from tda_jax.evaluation.bootstrap import both, interval, mean, multiplicities

NAN = float("nan")


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 99))
def test_each_draw_has_as_many_as_there_are(count, draws, seed):
    drawn = multiplicities(count, draws, seed, "subsets")
    assert drawn.shape == (draws, count)
    assert (drawn >= 0).all()
    assert (drawn.sum(axis=1) == count).all()


def test_draws_are_a_function_of_seed_and_name():
    drawn = multiplicities(20, 5, 0, "subsets")
    np.testing.assert_array_equal(drawn, multiplicities(20, 5, 0, "subsets"))
    assert (drawn != multiplicities(20, 5, 1, "subsets")).any()
    assert (drawn != multiplicities(20, 5, 0, "queries")).any()


def test_draws_are_with_replacement():
    drawn = multiplicities(50, 4000, 0, "subsets")
    assert np.mean(drawn) == 1
    assert np.var(drawn) == pytest.approx(1 - 1 / 50, abs=0.02)
    np.testing.assert_allclose(drawn.mean(axis=0), 1, atol=0.08)


def test_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match="3 draws from 0"):
        multiplicities(0, 3, 0, "subsets")
    with pytest.raises(InputError, match="0 draws from 3"):
        multiplicities(3, 0, 0, "subsets")


@settings(deadline=None)
@given(st.integers(0, 999), st.booleans())
def test_both_repeats_queries_and_leaves_nan_ones_out(seed, methods):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4, 3, 6) if methods else (4, 6))
    values[rng.random(values.shape) < 0.3] = NAN
    queries = multiplicities(6, 4, seed, "queries")
    result = both(values, queries)
    assert result.shape == values.shape[:-1]
    for place in np.ndindex(result.shape):
        repeated = np.repeat(values[place], queries[place[0]])
        known = repeated[~np.isnan(repeated)]
        expected = known.mean() if len(known) else NAN
        np.testing.assert_allclose(result[place], expected, atol=1e-12)


def test_the_mean_leaves_nan_out():
    assert mean(np.array([1.0, NAN, 4.0])) == 2.5
    assert np.isnan(mean(np.array([NAN])))


def test_the_interval_is_of_percentiles_around_the_estimate():
    drawn = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert interval(3.0, drawn) == (3.0, 25.0, 975.0, 1001)
    assert interval(3.0, np.array([NAN, 1.0, np.inf, 1.0])) == (3.0, 1.0, 1.0, 2)
    nothing = interval(3.0, np.array([NAN]))
    assert (nothing.mean, nothing.count) == (3.0, 0)
    assert np.isnan([nothing.low, nothing.high]).all()


def test_the_interval_of_a_mean_covers_the_truth():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(500):
        values = rng.normal(size=40)
        drawn = both(np.broadcast_to(values, (400, 40)), multiplicities(40, 400, seed, "queries"))
        found = interval(mean(values), drawn)
        inside += found.low < 0 < found.high
    assert inside / 500 == pytest.approx(0.93, abs=0.03)  # percentiles are a little narrow
