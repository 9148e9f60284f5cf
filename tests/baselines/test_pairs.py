"""Two methods' scores as one: a plain loop, and what no unit, size or silence may change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tda_jax.baselines.pairs import sum_of_both
from tda_jax.errors import InputError

N = 12
OVER = np.tile(np.arange(N) % 4 > 0, (3, 1))


def drawn(seed):
    return np.random.default_rng(seed).standard_normal((3, N))


def test_the_sum_is_that_of_a_plain_loop():
    one, other, over = drawn(0), 1e3 * drawn(1), np.stack([OVER[0], ~OVER[0], np.ones(N, bool)])
    got = sum_of_both(one, other, over)
    for q in range(3):
        for t in range(N):
            parts = [(x[q, t] - x[q, over[q]].mean()) / x[q, over[q]].std() for x in (one, other)]
            assert got[q, t] == pytest.approx(sum(parts), rel=1e-12)


@given(st.floats(1e-9, 1e9), st.floats(-1e3, 1e3), st.integers(0, 2**16))
def test_neither_unit_nor_order_matters(scale, shift, seed):
    one, other = drawn(seed), drawn(seed + 1)
    want = sum_of_both(one, other, OVER)
    np.testing.assert_allclose(sum_of_both(scale * (one + shift), other, OVER), want, atol=1e-8)
    np.testing.assert_array_equal(sum_of_both(other, one, OVER), want)


def test_what_is_left_out_changes_no_other_score():
    one, other = drawn(2), drawn(3)
    itself = one.copy()
    itself[:, 0] = 1e6  # a query among the tracks
    got, want = (sum_of_both(x, other, OVER) for x in (itself, one))
    np.testing.assert_array_equal(got[:, 1:], want[:, 1:])
    assert np.all(got[:, 0] > 1e5)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9, np.nan])
def test_a_method_that_says_nothing_leaves_the_query_to_the_other(value):
    one, silent = drawn(4), np.full((3, N), value)
    np.testing.assert_allclose(
        sum_of_both(one, silent, OVER), sum_of_both(one, one, OVER) / 2, rtol=1e-12
    )


def test_a_track_without_a_score_is_nan_and_counts_nowhere():
    one, other = drawn(5), drawn(6)
    lacking = one.copy()
    lacking[1, 5] = np.nan
    got = sum_of_both(lacking, other, OVER)
    assert np.isnan(got[1, 5])
    assert np.isnan(got).sum() == 1
    np.testing.assert_array_equal(got[[0, 2]], sum_of_both(one, other, OVER)[[0, 2]])
    others, told = np.arange(N) != 5, OVER[1] & (np.arange(N) != 5)
    parts = [
        (x[1] - x[1, over].mean()) / x[1, over].std() for x, over in ((one, told), (other, OVER[1]))
    ]
    np.testing.assert_allclose(got[1, others], sum(parts)[others], rtol=1e-9)


def test_infinite_scores_are_refused():
    with pytest.raises(InputError, match="infinite"):
        sum_of_both(np.full((3, N), np.inf), drawn(7), OVER)
