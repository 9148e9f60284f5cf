import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.errors import InputError
from tda_jax.evaluation.datamodelling import (
    ceiling,
    halves,
    lds,
    partial_lds,
    predicted,
    reliability,
)
from tda_jax.evaluation.ranking import ranks, spearman

NAN = float("nan")
SEEDS = st.integers(0, 9999)


def case(seed, methods=3, queries=4, subsets=12, tied=False):
    """Predictions that tell something of the losses, some worse, and multiplicities."""
    rng = np.random.default_rng(seed)
    losses = rng.normal(size=(subsets, queries))
    told = -losses.T + rng.normal(size=(methods, queries, subsets))
    if tied:
        losses, told = np.round(losses), np.round(told)
    weights = rng.multinomial(subsets, np.full(subsets, 1 / subsets), size=5)
    return told, losses, weights


def plain_partial(x, y, covariates):
    """Partial Spearman correlation of two vectors by ordinary least squares on ranks."""
    design = np.column_stack([np.ones(len(x)), *(ranks(c) for c in covariates)])
    left = [r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in (ranks(x), ranks(y))]
    if min(rest @ rest for rest in left) < 1e-6:
        return NAN  # of few rows, the ranks may be those of a covariate
    return left[0] @ left[1] / np.sqrt((left[0] @ left[0]) * (left[1] @ left[1]))


@settings(deadline=None)
@given(SEEDS)
def test_predictions_are_plain_sums_over_kept_tracks(seed):
    rng = np.random.default_rng(seed)
    scores, kept = rng.normal(size=(2, 3, 7)), rng.random((5, 7)) < 0.5
    result = predicted(scores, kept)
    for m, q, s in np.ndindex(result.shape):
        plain = sum(scores[m, q, i] for i in range(7) if kept[s, i])
        assert result[m, q, s] == pytest.approx(plain, rel=1e-9, abs=1e-11)
    order = rng.permutation(7)
    np.testing.assert_allclose(predicted(scores[..., order], kept[:, order]), result, atol=1e-11)


def test_a_missing_score_counts_as_the_mean_of_the_others():
    kept = np.array([[1, 0, 1], [0, 1, 1]], bool)
    result = predicted(np.array([[[1, 5, NAN], [NAN, NAN, NAN]]]), kept)
    np.testing.assert_allclose(result, [[[4, 8], [NAN, NAN]]])
    assert np.isnan(lds(result, np.array([[1.0, 1.0], [2.0, 2.0]]))).tolist() == [[False, True]]


def test_an_infinite_score_is_refused():
    with pytest.raises(InputError, match="method 0 scores track 1 infinite for query 2"):
        predicted(
            np.where(np.arange(12).reshape(1, 3, 4) == 9, -np.inf, 0.0), np.ones((2, 4), bool)
        )


@settings(deadline=None)
@given(SEEDS, st.sampled_from([0.1, 1e-30, -3.3, 0.0, 1e25]))
def test_equal_sums_tie_in_whatever_order_they_are_added(seed, value):
    rng = np.random.default_rng(seed)
    kept = np.array([rng.permutation(60) < 30 for _ in range(40)])
    told = predicted(np.full((1, 1, 60), value), kept)
    assert np.isnan(lds(told, rng.normal(size=(40, 1)))).all()
    # Even as float32, and with scores of three sizes, as many of each in every subset.
    kept = np.tile(np.array([rng.permutation(20) < 10 for _ in range(40)]), (1, 3))
    thirds = np.repeat(np.array([0.1, 0.2, 0.7], np.float32), 20)[None, None]
    assert np.isnan(lds(predicted(thirds, kept), rng.normal(size=(40, 1)))).all()


@settings(deadline=None)
@given(SEEDS, st.booleans())
def test_lds_is_the_spearman_correlation_with_minus_the_loss(seed, tied):
    told, losses, _ = case(seed, tied=tied)
    result = lds(told, losses)
    for m, q in np.ndindex(result.shape):
        expected = spearman(told[m, q], -losses[:, q])
        np.testing.assert_allclose(result[m, q], expected, atol=1e-12)


@settings(deadline=None)
@given(SEEDS, st.booleans())
def test_weights_repeat_rows(seed, tied):
    told, losses, weights = case(seed, tied=tied)
    result = lds(told, losses, weights)
    for b, m, q in np.ndindex(result.shape):
        rows = np.repeat(np.arange(12), weights[b])
        expected = spearman(told[m, q, rows], -losses[rows, q])
        np.testing.assert_allclose(result[b, m, q], expected, atol=1e-12)


def test_methods_that_come_in_chunks_are_as_they_are_alone(monkeypatch):
    told, losses, weights = case(0, methods=7)
    whole = lds(told, losses, weights)
    monkeypatch.setattr("tda_jax.evaluation.datamodelling._CHUNK_BYTES", 8 * 4 * 12 * 12 * 2)
    np.testing.assert_allclose(lds(told, losses, weights), whole, rtol=1e-12)


@settings(deadline=None)
@given(SEEDS)
def test_only_the_order_of_losses_and_predictions_counts(seed):
    told, losses, weights = case(seed)
    covariates = told[:2]
    expected = lds(told, losses, weights)
    np.testing.assert_allclose(lds(np.exp(told), losses**3, weights), expected, atol=1e-12)
    np.testing.assert_allclose(lds(-told, losses, weights), -expected, atol=1e-12)
    order = np.random.default_rng(seed).permutation(12)
    moved = lds(told[..., order], losses[order], weights[:, order])
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    left = partial_lds(told[2:], losses, covariates, weights)
    moved = partial_lds(
        np.exp(told[2:])[..., order], losses[order], 3 * covariates[..., order], weights[:, order]
    )
    np.testing.assert_allclose(moved, left, atol=1e-9)


@pytest.mark.parametrize("where", ["told", "losses"])
def test_what_is_all_alike_or_nan_has_no_lds(where):
    for value in (1.0, NAN):
        told, losses, weights = case(0)
        if where == "told":
            told[1, 2] = value
            told[0, 1, 3] = NAN
            lost = {(1, 2), (0, 1)}
        else:
            losses[:, 2] = value
            lost = {(m, 2) for m in range(3)}
        for result in (lds(told, losses), lds(told, losses, weights)[0]):
            assert set(map(tuple, np.argwhere(np.isnan(result)).tolist())) == lost
        covariates = np.random.default_rng(1).normal(size=(2, 4, 12))
        result = partial_lds(told, losses, covariates)
        assert set(map(tuple, np.argwhere(np.isnan(result)).tolist())) == lost


@settings(deadline=None)
@given(SEEDS, st.booleans(), st.integers(0, 3))
def test_partial_lds_is_that_of_plain_least_squares(seed, tied, count):
    told, losses, _ = case(seed, subsets=20, tied=tied)
    covariates = told[:1] + np.random.default_rng(seed + 1).normal(size=(count, 4, 20))
    result = partial_lds(told, losses, covariates)
    for m, q in np.ndindex(result.shape):
        expected = plain_partial(told[m, q], -losses[:, q], covariates[:, q])
        assert result[m, q] == pytest.approx(expected, abs=1e-9, nan_ok=True)


@settings(deadline=None)
@given(SEEDS, st.booleans())
def test_partial_weights_repeat_rows(seed, tied):
    told, losses, _ = case(seed, subsets=20, tied=tied)
    rng = np.random.default_rng(seed + 1)
    covariates = told[:1] + rng.normal(size=(2, 4, 20))
    weights = rng.multinomial(20, np.full(20, 0.05), size=3)
    result = partial_lds(told, losses, covariates, weights)
    for b, m, q in np.ndindex(result.shape):
        rows = np.repeat(np.arange(20), weights[b])
        expected = plain_partial(told[m, q, rows], -losses[rows, q], covariates[:, q][:, rows])
        assert result[b, m, q] == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_covariates_that_add_nothing_change_nothing():
    told, losses, weights = case(0, subsets=20)
    covariate = np.random.default_rng(1).normal(size=(1, 4, 20))
    flat = np.ones_like(covariate)
    for w in (None, weights):
        expected = partial_lds(told, losses, covariate, w)
        again = np.concatenate([covariate, flat, np.exp(covariate), -covariate])
        np.testing.assert_allclose(partial_lds(told, losses, again, w), expected, atol=1e-9)
        np.testing.assert_allclose(
            partial_lds(told, losses, flat, w), lds(told, losses, w), atol=1e-12
        )


def test_a_prediction_that_is_its_covariate_tells_nothing():
    told, losses, weights = case(0)
    for w in (None, weights):
        result = partial_lds(np.exp(told), losses, told[1:2], w)
        assert np.isnan(result[..., 1, :]).all()
        assert not np.isnan(result[..., [0, 2], :]).any()
    assert np.isnan(partial_lds(told, losses, -losses.T[None])).all()


def test_a_covariate_takes_away_what_it_tells_and_no_more():
    rng = np.random.default_rng(0)
    likeness, true = rng.normal(size=(2, 1, 1, 2000))
    losses = -(likeness + true)[0].T
    through = likeness + 0.5 * rng.normal(size=(1, 1, 2000))
    assert lds(through, losses)[0, 0] > 0.5
    assert abs(partial_lds(through, losses, likeness)[0, 0]) < 0.05
    assert partial_lds(true, losses, likeness)[0, 0] > lds(true, losses)[0, 0] > 0.6


def test_a_covariate_that_is_not_there_is_refused():
    told, losses, _ = case(0)
    with pytest.raises(InputError, match="covariate 0 is nan for query 2"):
        partial_lds(told, losses, np.where(np.arange(4)[:, None] == 2, NAN, told[:1]))


def test_two_seeds_are_correlated_and_stepped_up():
    losses = np.random.default_rng(0).normal(size=(2, 30, 3))
    losses[1] += losses[0]
    result = reliability(losses)
    for q in range(3):
        r = spearman(losses[0, :, q], losses[1, :, q])
        assert 0.2 < r < 0.95
        assert result[q] == pytest.approx(2 * r / (1 + r))
    np.testing.assert_allclose(ceiling(losses) ** 2, result)


def test_all_halves_of_the_seeds_are_averaged():
    losses = np.random.default_rng(0).normal(size=(4, 30, 1)) + np.arange(30)[None, :, None] / 9
    pairs = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    r = np.mean([spearman(*(losses[list(h)].mean(axis=0)[:, 0] for h in p)) for p in pairs])
    assert reliability(losses)[0] == pytest.approx(2 * r / (1 + r))
    # An odd number: one against one, the third left out, stepped up threefold.
    pairs = [(0, 1), (0, 2), (1, 2)]
    r = np.mean([spearman(losses[i, :, 0], losses[j, :, 0]) for i, j in pairs])
    assert reliability(losses[:3])[0] == pytest.approx(3 * r / (1 + 2 * r))


@settings(deadline=None)
@given(SEEDS, st.integers(2, 5))
def test_reliability_is_a_share_and_its_weights_repeat_rows(seed, count):
    rng = np.random.default_rng(seed)
    losses = rng.normal(size=(count, 12, 2)) + rng.normal(size=(12, 2))
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=3)
    result = reliability(losses, weights)
    assert ((result >= 0) & (result <= 1 + 1e-12)).all()
    for b in range(3):
        rows = np.repeat(np.arange(12), weights[b])
        np.testing.assert_allclose(result[b], reliability(losses[:, rows]), atol=1e-12)
    np.testing.assert_allclose(reliability(losses[::-1]), reliability(losses), atol=1e-12)


def test_seeds_that_disagree_have_no_reliability_and_those_that_agree_all():
    rising = np.arange(10.0)[:, None]
    assert reliability(np.stack([rising, -rising]))[0] == 0.0
    assert reliability(np.stack([rising, np.exp(rising)]))[0] == pytest.approx(1.0)
    assert np.isnan(reliability(np.stack([rising, 0 * rising]))[0])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_ceiling_is_what_the_truth_reaches(count):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(1, 1, 2000))
    losses = -truth[0].T + rng.normal(size=(count, 2000, 1))
    reached = lds(truth, losses.mean(axis=0))[0, 0]
    assert reached < 0.9
    assert ceiling(losses)[0] == pytest.approx(reached, abs=0.03)


@pytest.mark.parametrize("count", [0, 1])
def test_one_seed_has_no_reliability(count):
    with pytest.raises(InputError, match=f"losses of {count} seeds; give 2 at least"):
        reliability(np.zeros((count, 5, 1)))


def test_even_subsets_choose_and_odd_ones_report():
    choosing, reporting = halves(5)
    assert choosing.tolist() == [True, False, True, False, True]
    assert (choosing ^ reporting).all()
    with pytest.raises(InputError, match="1 subsets cannot be halved"):
        halves(1)
