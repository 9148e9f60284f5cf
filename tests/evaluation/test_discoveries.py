import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax import named_draws
from tda_jax.attribution.calibration import q_values
from tda_jax.errors import InputError
from tda_jax.evaluation.discoveries import fewest, precision

NAN = float("nan")


def corpus(seed, queries=60, influential=40, others=160, decoys=200, shift=4.0):
    """Members of which some score higher, decoys, and who is what."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(queries, influential + others + decoys))
    scores[:, :influential] += shift
    members = np.arange(scores.shape[1]) < influential + others
    return scores, members, np.arange(scores.shape[1]) < influential


def plain(scores, members, level, seed):
    """One query at a time, counted track by track."""
    decoys = np.flatnonzero(~members)
    shuffled = named_draws.generator(seed, "decoy halves").permutation(decoys)
    middle = (len(decoys) + 1) // 2
    called, false, shares = [], [], []
    for half in (shuffled[:middle], shuffled[middle:]):

        def called_among(targets, half=half):
            rows = np.array([*targets, *half])
            q = q_values(scores[rows], np.arange(len(rows)) < len(targets))
            return {i for i, value in zip(targets, q, strict=False) if value <= level}

        own = [*np.flatnonzero(members)]
        held_out = [i for i in decoys if i not in half]
        ours = len(called_among(own))
        wrong = sum(i in called_among([*own, i]) for i in held_out) * len(own) / len(held_out)
        called.append(ours)
        false.append(wrong)
        shares += [1 - min(1, wrong / ours)] if ours else []
    return np.mean(called), np.mean(false), np.mean(shares) if shares else NAN


@settings(deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.05, 0.2, 0.5]))
def test_discoveries_are_a_plain_count(seed, level):
    scores, members, _ = corpus(seed, queries=3, influential=8, others=12, decoys=21, shift=2.0)
    result = precision(scores, members, level, seed)
    for q in range(3):
        expected = plain(scores[q], members, level, seed)
        np.testing.assert_allclose([part[q] for part in result], expected, atol=1e-12)


@pytest.mark.parametrize("level", [0.1, 0.3])
def test_a_promise_that_is_kept_is_found_kept(level):
    scores, members, influential = corpus(0)
    result = precision(scores, members, level, 0)
    called = np.array([q_values(row, members) for row in scores]) <= level
    truth = called[:, influential].sum() / called.sum()
    pooled = 1 - result.false.sum() / result.called.sum()
    assert pooled == pytest.approx(1 - level, abs=0.04)
    # The estimate takes all 200 members for false ones that could be called; 160 could.
    assert 1 - (1 - pooled) * 160 / 200 == pytest.approx(truth, abs=0.03)
    assert result.precision.mean() == pytest.approx(pooled, abs=0.05)
    assert result.called.mean() == pytest.approx(called.sum(axis=1).mean(), rel=0.1)


def test_members_that_beat_decoys_untrained_break_the_promise():
    """The decoys held out are unlike those that calibrated: the estimate must be able to fail."""
    scores, members, _ = corpus(0, decoys=200)
    honest = precision(scores, members, 0.1, 0)
    shuffled = named_draws.generator(0, "decoy halves").permutation(np.flatnonzero(~members))
    scores[:, shuffled[:40]] += 4.0  # of the first half
    broken = precision(scores, members, 0.1, 0)
    assert honest.precision.mean() > 0.85
    assert broken.false.sum() > 5 * honest.false.sum()
    assert np.nanmean(broken.precision) < 0.6


def test_without_influence_little_is_called_and_falsely():
    scores, members, _ = corpus(0, queries=400, shift=0.0)
    result = precision(scores, members, 0.5, 0)
    assert np.isnan(result.precision[result.called == 0]).all()
    assert not np.isnan(result.precision[result.called > 0]).any()
    assert result.false.sum() / result.called.sum() == pytest.approx(1.0, abs=0.15)


@settings(deadline=None)
@given(st.integers(0, 999))
def test_only_the_order_of_scores_counts_and_nan_takes_no_part(seed):
    scores, members, _ = corpus(seed, queries=2, influential=8, others=12, decoys=20, shift=2.0)
    expected = precision(scores, members, 0.3, seed)
    for one, other in zip(precision(np.exp(scores), members, 0.3, seed), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    longer = np.hstack([np.full((2, 3), NAN), scores])  # members without a score
    wider = precision(longer, np.hstack([np.ones(3, bool), members]), 0.3, seed)
    for one, other in zip(wider, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_query_without_scores_has_no_precision():
    scores, members, _ = corpus(0, queries=2)
    scores[1] = NAN
    result = precision(scores, members, 0.1, 0)
    assert result.called[1] == 0
    assert np.isnan(result.precision).tolist() == [False, True]


def test_what_cannot_be_split_is_refused():
    scores = np.zeros((1, 4))
    with pytest.raises(InputError, match="3 members and 1 decoys; give 1 and 2 at least"):
        precision(scores, np.array([1, 1, 1, 0], bool), 0.1, 0)
    with pytest.raises(InputError, match="0 members and 4 decoys"):
        precision(scores, np.zeros(4, bool), 0.1, 0)
    with pytest.raises(InputError, match=r"level = 10.0; give a number between 0 and 1"):
        precision(scores, np.array([1, 1, 0, 0], bool), 10.0, 0)


@pytest.mark.parametrize(
    ("n_members", "n_decoys", "level"), [(80, 28, 0.1), (96, 48, 0.1), (7, 5, 0.5)]
)
def test_the_fewest_that_can_be_called_are_called_and_no_fewer(n_members, n_decoys, level):
    members = np.arange(n_members + n_decoys) < n_members
    least = fewest(members, level)
    for k in range(1, n_members + 1):
        scores = np.where(members, -1.0, 0.0)  # but for k, behind every decoy
        scores[:k] = 1.0
        called = precision(scores[None], members, level, 0).called[0]
        assert (called > 0) == (k >= least)
        if k >= least and n_decoys % 2 == 0:
            assert called == k


def test_too_few_decoys_ask_for_more_members_than_there_are():
    assert fewest(np.arange(30) < 28, 0.1) > 28
