import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tda_jax.attribution.scores import (
    WEIGHTINGS,
    exact,
    jackknife_standard_error,
    linearised,
    not_finite,
    per_bin,
    score,
)
from tda_jax.errors import InputError

N, R, S = 5, 3, 20


def draws(seed, shape=(N, R, S)):
    """Strata differ from each other and so do tracks; draws of a stratum scatter."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(shape[0], 1, shape[2])) + 0.1 * rng.normal(size=shape)


def plain_bin(values, i, k):
    """The mean over the draws of bin k: strata 2k and 2k + 1 of 20."""
    pairs = itertools.product(range(R), (2 * k, 2 * k + 1))
    return sum(float(values[i, r, s]) for r, s in pairs) / (2 * R)


def plain_divisors(weighting, values, before):
    """What each track's rise in each bin is divided by."""
    rise = [[plain_bin(values, i, k) for k in range(10)] for i in range(N)]
    if weighting == "uniform":
        return [[1.0] * 10] * N
    if weighting == "ratio":
        return [[plain_bin(before, i, k) for k in range(10)] for i in range(N)]
    spread = []
    for k in range(10):
        mean = sum(row[k] for row in rise) / N
        spread.append((sum((row[k] - mean) ** 2 for row in rise) / N) ** 0.5)
    return [spread] * N


def plain_score(weighting, values, before):
    divisors = plain_divisors(weighting, values, before)
    return [sum(plain_bin(values, i, k) / divisors[i][k] for k in range(10)) / 10 for i in range(N)]


def plain_error(weighting, values, before):
    divisors = plain_divisors(weighting, values, before)
    errors = []
    for i in range(N):
        total = 0.0
        for s in range(S):
            mean = sum(values[i, r, s] for r in range(R)) / R
            variance = sum((values[i, r, s] - mean) ** 2 for r in range(R)) / (R - 1)
            weight = 1 / (10 * 2 * divisors[i][s // 2])
            total += weight**2 * variance / R
        errors.append(total**0.5)
    return errors


def test_exact_is_the_paired_difference_in_float64():
    before = np.full((1, 2, 10), 1.0, np.float32)
    after = np.nextafter(before, np.float32(2))
    rise = exact(before, after)
    assert rise.dtype == np.float64
    assert np.all(rise == 2.0**-23)


@given(st.floats(-10, 10), st.integers(0, 99))
def test_the_odd_part_turns_with_the_step_and_the_even_part_does_not(lr, seed):
    a, b = draws(seed), draws(seed + 1)
    there, back = linearised(a, b, lr), linearised(a, b, -lr)
    assert np.array_equal(there.odd, -back.odd)
    assert np.array_equal(there.even, back.even)
    np.testing.assert_array_equal(there.odd, lr * a)
    np.testing.assert_array_equal(there.even, lr * lr * b)
    np.testing.assert_array_equal(there.total, lr * a + lr * lr * b)


def test_bins_are_plain_means():
    values = draws(0)
    expected = [[plain_bin(values, i, k) for k in range(10)] for i in range(N)]
    np.testing.assert_allclose(per_bin(values), expected, rtol=1e-12)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_scores_and_errors_are_a_plain_loop(weighting):
    values, before = draws(0), np.abs(draws(1)) + 0.1
    result = score(values, weighting, before)
    np.testing.assert_allclose(result.value, plain_score(weighting, values, before), rtol=1e-12)
    np.testing.assert_allclose(
        result.standard_error, plain_error(weighting, values, before), rtol=1e-12
    )


@given(st.integers(0, 99), st.sampled_from(WEIGHTINGS), st.permutations(range(N)))
def test_scores_go_with_their_tracks(seed, weighting, order):
    values, before = draws(seed), np.abs(draws(seed + 1)) + 0.1
    straight, turned = (
        score(values[rows], weighting, before[rows]) for rows in (np.arange(N), np.array(order))
    )
    np.testing.assert_allclose(straight.value[list(order)], turned.value, rtol=1e-12)
    np.testing.assert_allclose(
        straight.standard_error[list(order)], turned.standard_error, rtol=1e-12
    )


def test_standardised_and_ratio_have_no_unit():
    values, before = draws(0), np.abs(draws(1)) + 0.1
    np.testing.assert_allclose(
        score(values, "standardised").value, score(1e-6 * values, "standardised").value, rtol=1e-9
    )
    np.testing.assert_allclose(
        score(values, "ratio", before).value,
        score(1e-6 * values, "ratio", 1e-6 * before).value,
        rtol=1e-9,
    )


# The noise of a draw in each stratum: most of it is in the last strata, as in a diffusion loss.
NOISE = np.linspace(0.1, 2.0, S)


def simulated(seed, repeats, replicates, divisor=1.0):
    """One track swept `repeats` times: fixed strata, and noise of a known size within them."""
    rng = np.random.default_rng(seed)
    levels = 5 * rng.normal(size=S)
    noise = NOISE * rng.normal(size=(repeats, replicates, S))
    truth = np.sqrt(np.sum((NOISE / divisor / S) ** 2) / replicates)
    return levels + noise, truth


@pytest.mark.parametrize("replicates", [2, 4])
def test_the_standard_error_is_calibrated_and_the_naive_one_is_not(replicates):
    values, truth = simulated(0, 20_000, replicates)
    result = score(values)
    # The score scatters as much as it should, and the mean SE² is that variance.
    assert result.value.std() == pytest.approx(truth, rel=0.02)
    assert np.mean(result.standard_error**2) == pytest.approx(truth**2, rel=0.02)
    naive = values.reshape(len(values), -1).std(axis=1, ddof=1) / np.sqrt(replicates * S)
    assert np.mean(naive**2) > 4 * truth**2


def test_the_standard_error_of_a_ratio_is_calibrated():
    values, _ = simulated(1, 20_000, 4)
    before = np.repeat(np.linspace(3.0, 0.2, 10), 2)
    truth = np.sqrt(np.sum((NOISE / before / S) ** 2) / 4)
    result = score(values, "ratio", np.broadcast_to(before, values.shape).copy())
    assert result.value.std() == pytest.approx(truth, rel=0.02)
    assert np.mean(result.standard_error**2) == pytest.approx(truth**2, rel=0.02)


def test_an_interval_of_two_standard_errors_covers_as_it_should():
    values, _ = simulated(2, 20_000, 8)
    result = score(values)
    centre = np.mean(result.value)
    covered = np.mean(np.abs(result.value - centre) < 1.96 * result.standard_error)
    assert covered == pytest.approx(0.945, abs=0.01)  # a little under 0.95: SE is estimated


def test_a_bin_that_ranks_nothing_is_left_out_of_the_standardised_mean():
    values = draws(0)
    values[:, :, 6:8] = 0.1  # bin 3 of every track
    result = score(values, "standardised").value
    rise = per_bin(values)
    kept = [k for k in range(10) if k != 3]
    expected = np.mean(rise[:, kept] / rise[:, kept].std(axis=0), axis=1)
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert np.isfinite(score(values, "standardised").standard_error).all()


def test_tracks_that_no_bin_tells_apart_have_no_standardised_score():
    result = score(np.repeat(draws(0)[:1], 3, axis=0), "standardised")
    assert np.isnan(result.value).all()
    assert np.isnan(result.standard_error).all()


def test_a_track_that_had_no_loss_has_no_ratio():
    before = np.ones((N, R, S))
    before[2, :, 4:6] = 0.0
    result = score(draws(0), "ratio", before)
    assert list(np.isnan(result.value)) == [False, False, True, False, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_before_that_is_not_finite_has_no_ratio(bad):
    before = np.ones((N, R, S))
    before[2, 1, 4] = bad
    result = score(draws(0), "ratio", before)
    assert list(np.isnan(result.value)) == [False, False, True, False, False]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_draw_that_is_not_finite_spoils_its_own_track_only(weighting, bad):
    values, before = draws(0), np.abs(draws(1)) + 0.1
    spoilt = values.copy()
    spoilt[3, 1, 7] = bad
    others = np.array([0, 1, 2, 4])
    result, without = (
        score(spoilt, weighting, before),
        score(values[others], weighting, before[others]),
    )
    for got, expected in zip(result, without, strict=True):
        assert np.isnan(got[3])
        np.testing.assert_array_equal(got[others], expected)


def test_tracks_with_draws_that_are_not_finite_are_named():
    values, before = draws(0), draws(1)
    values[3, 1, 7], before[0, 0, 0], before[3, 0, 0] = np.nan, np.inf, np.nan
    assert not_finite(list("abcde"), values, before) == ["a", "d"]
    assert not_finite(list("abcde"), draws(0)) == []


def test_a_jackknife_of_means_is_the_standard_error_of_the_mean():
    x = np.random.default_rng(0).normal(size=(8, 6))
    without = (x.sum(axis=0) - x) / 7
    expected = x.std(axis=0, ddof=1) / np.sqrt(8)
    np.testing.assert_allclose(jackknife_standard_error(without), expected, rtol=1e-12)


def pairs_mean(x):
    """The mean of x_j · x_k over j != k, along axis 0: as the even part is made of blocks."""
    count = len(x)
    return (x.sum(axis=0) ** 2 - (x**2).sum(axis=0)) / (count * (count - 1))


@pytest.mark.parametrize(("mean", "blocks"), [(2.0, 8), (0.5, 8), (0.0, 8), (0.5, 16)])
def test_a_jackknife_of_products_of_unlike_blocks_has_the_known_expectation(mean, blocks):
    """Hoeffding: the statistic is mean² + 2 mean · (mean of d) + (mean of d_j d_k)."""
    x = mean + np.random.default_rng(0).normal(size=(blocks, 200_000))
    linear, quadratic = 4 * mean**2 / blocks, 2 / (blocks * (blocks - 1))
    assert pairs_mean(x).mean() == pytest.approx(mean**2, abs=0.01)  # no bias by the noise
    assert pairs_mean(x).var() == pytest.approx(linear + quadratic, rel=0.02)
    without = np.stack([pairs_mean(np.delete(x, b, axis=0)) for b in range(blocks)])
    inflated = quadratic * 2 * (blocks - 1) / (blocks - 2)
    estimated = np.mean(jackknife_standard_error(without) ** 2)
    assert estimated == pytest.approx(linear + inflated, rel=0.02)


def test_one_draw_for_a_stratum_is_refused():
    with pytest.raises(InputError, match="at least 2 replicates"):
        score(draws(0, (N, 1, S)))


def test_other_input_that_cannot_be_scored_is_refused():
    values = draws(0)
    with pytest.raises(InputError, match=r"unknown weighting 'sum'; choose one of \['uniform'"):
        score(values, "sum")
    with pytest.raises(InputError, match="the losses before, and there are none"):
        score(values, "ratio")
    with pytest.raises(InputError, match=r"shape \(5, 2, 20\) for rises of shape \(5, 3, 20\)"):
        score(values, "ratio", values[:, :2])
    with pytest.raises(InputError, match="strata = 15"):
        score(values[:, :, :15])
    with pytest.raises(InputError, match="learning rate inf is not finite"):
        linearised(values, values, float("inf"))
    with pytest.raises(InputError, match=r"jackknife over 1 block\(s\)"):
        jackknife_standard_error(np.zeros((1, 3)))
