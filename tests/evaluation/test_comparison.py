import numpy as np
import pytest

from tda_jax.errors import InputError
from tda_jax.evaluation import comparison
from tda_jax.evaluation.bootstrap import multiplicities
from tda_jax.evaluation.datamodelling import ceiling
from tda_jax.evaluation.ranking import spearman

NAN = float("nan")
NAMES = ["good", "fair", "none"]


def compare(names, scores, *given, alike=None, **more):
    alike = np.zeros(scores.shape[1], int) if alike is None else alike
    return comparison.compare(names, scores, *given, alike=alike, **more)


def case(seed=0, queries=5, subsets=24, tracks=16):
    """Losses that are minus a sum of true scores and noise; scores near them, and not."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(queries, tracks))
    kept = np.array([rng.permutation(tracks) < tracks // 2 for _ in range(subsets)])
    losses = -(kept @ true.T) + rng.normal(size=(2, subsets, queries))
    errors = rng.normal(size=(3, queries, tracks))
    scores = np.stack([true, true, 0 * true]) + np.array([0.1, 1.0, 1.0])[:, None, None] * errors
    return scores, kept, losses, rng.normal(size=(1, queries, tracks))


def test_rows_are_means_over_queries_and_percentiles_over_repeated_rows():
    scores, kept, losses, covariates = case()
    rows, top = compare(NAMES, scores, kept, losses, covariates, "good", draws=30, seed=3)
    assert [row.method for row in rows] == NAMES
    subsets = multiplicities(24, 30, 3, "subsets")
    queries = multiplicities(5, 30, 3, "queries")

    def plain(m, s, q):
        told, loss = kept[s] @ scores[m].T, losses.mean(axis=0)[s]
        return np.mean([spearman(told[:, i], -loss[:, i]) for i in q])

    pairs = zip(subsets, queries, strict=True)
    drawn = [(np.repeat(np.arange(24), s), np.repeat(np.arange(5), q)) for s, q in pairs]
    for m, row in enumerate(rows):
        own, reference = ([plain(i, s, q) for s, q in drawn] for i in (m, 0))
        everything = plain(m, np.arange(24), np.arange(5))
        expected = (everything, *np.percentile(own, [2.5, 97.5]), 30)
        assert row.lds == pytest.approx(expected)
        ahead = np.subtract(reference, own)
        expected = plain(0, np.arange(24), np.arange(5)) - everything
        assert row.behind == pytest.approx((expected, *np.percentile(ahead, [2.5, 97.5]), 30))
        assert row.share == pytest.approx(everything / ceiling(losses).mean())
    repeated = [ceiling(losses[:, s])[q].mean() for s, q in drawn]
    expected = (ceiling(losses).mean(), *np.percentile(repeated, [2.5, 97.5]), 30)
    assert top == pytest.approx(expected)


def test_better_scores_are_ahead():
    scores, kept, losses, covariates = case(queries=12, subsets=64)
    rows, top = compare(NAMES, scores, kept, losses, covariates, "good", draws=300)
    good, fair, none = rows
    assert good.lds.mean > fair.lds.mean > none.lds.mean
    assert good.behind == (0.0, 0.0, 0.0, 300)
    assert fair.behind.low > 0
    assert none.behind.low > fair.behind.high
    assert none.lds.low < 0 < none.lds.high
    assert top.low < good.lds.mean < top.high + 0.05
    # Paired: what both methods share is not in the interval of their difference.
    again, _ = compare(["one", "two"], scores[[0, 0]], kept, losses, covariates, "one", draws=50)
    assert again[1].behind == (0.0, 0.0, 0.0, 50)
    assert again[1].lds == again[0].lds


def test_a_covariate_that_is_the_method_leaves_nothing_of_it():
    scores, kept, losses, _ = case()
    rows, _ = compare(NAMES, scores, kept, losses, 2 * scores[:1] + 1, "fair", draws=20)
    assert np.isnan(rows[0].partial.mean)
    assert not np.isnan(rows[1].partial.mean)
    none = np.empty((0, 5, 16))
    rows, _ = compare(NAMES, scores, kept, losses, none, "fair", draws=20)
    assert all(row.partial == row.lds for row in rows)


def test_only_the_order_of_losses_counts_and_not_the_place_of_a_track():
    scores, kept, losses, covariates = case()
    expected, top = compare(NAMES, scores, kept, losses, covariates, "good", draws=20)
    order = np.random.default_rng(0).permutation(16)
    moved = (scores[..., order], kept[:, order], losses, covariates[..., order])
    again, high = compare(NAMES, *moved, "good", draws=20)
    same = losses[:1].repeat(2, axis=0)
    one, _ = compare(NAMES, scores, kept, same, covariates, "good", draws=20)
    other, full = compare(NAMES, scores, kept, np.exp(same), covariates, "good", draws=20)
    for first, second in zip([*expected, *one], [*again, *other], strict=True):
        for a, b in zip(first[1:4], second[1:4], strict=True):
            assert a == pytest.approx(b, abs=1e-9)
    assert high == pytest.approx(top)
    assert full == pytest.approx((1.0, 1.0, 1.0, 20))


def test_a_query_of_which_nothing_is_told_counts_as_chance():
    scores, kept, losses, covariates = case()
    full, _ = compare(NAMES, scores, kept, losses, covariates, "good", draws=20)
    told, loss = kept @ scores[1, 2], losses.mean(axis=0)[:, 2]
    scores[1, 2] = NAN
    scores[2] = 1.0
    rows, _ = compare(NAMES, scores, kept, losses, covariates, "good", draws=20)
    lost = spearman(told, -loss) / 5
    assert rows[1].lds.mean == pytest.approx(full[1].lds.mean - lost)
    assert rows[1].behind.mean == pytest.approx(full[1].behind.mean + lost)
    assert rows[2].lds == (0.0, 0.0, 0.0, 20)
    assert rows[2].behind.mean == pytest.approx(rows[0].lds.mean)


def test_what_is_said_of_every_query_is_not_specific():
    scores, kept, losses, covariates = case(queries=8, subsets=64)
    common = np.random.default_rng(1).normal(size=16)
    common -= np.linalg.pinv(scores[0]) @ (scores[0] @ common)  # nothing of any query's own
    common = common * np.ones((8, 1))
    losses = losses - 3 * (kept @ common.T)
    named = ["true", "common"]
    both = np.stack([scores[0], common + 1e-6 * scores[1]])
    rows, _ = compare(named, both, kept, losses, covariates, "true", draws=200)
    assert rows[1].lds.low > 0.3
    assert rows[1].specific.low < 1e-3
    assert abs(rows[1].specific.mean) < 0.01
    assert rows[0].specific.low > 0
    apart = np.arange(8)  # no query has others: nothing to compare with
    alone, _ = compare(named, both, kept, losses, covariates, "true", alike=apart, draws=20)
    assert alone[0].specific.mean == pytest.approx(alone[0].lds.mean)


def test_scores_without_the_query_are_those_of_the_others_of_its_group():
    scores = np.random.default_rng(0).normal(size=(1, 4, 6))
    scores[0, 1, 3], scores[0, 2] = NAN, NAN
    found = comparison.without_query(scores, np.array([0, 0, 0, 1]))[0]
    assert np.isfinite(found[:3]).all()
    assert np.isnan(found[3]).all()
    assert found[0, 3] == 0  # what is not known counts as the mean
    whole = np.random.default_rng(1).normal(size=(1, 3, 6))
    z = (whole[0] - whole[0].mean(1, keepdims=True)) / whole[0].std(1, keepdims=True)
    got = comparison.without_query(whole, np.zeros(3, int))[0]
    np.testing.assert_allclose(
        got, np.stack([z[[1, 2]].mean(0), z[[0, 2]].mean(0), z[[0, 1]].mean(0)])
    )


def test_seeds_that_share_nothing_leave_no_share():
    scores, kept, losses, covariates = case()
    opposed = np.stack([losses[0], -losses[0]]) + 0.001 * losses[1]
    rows, top = compare(NAMES, scores, kept, opposed, covariates, "good", draws=20)
    assert top.mean == 0.0
    assert np.isnan([row.share for row in rows]).all()


def test_names_that_do_not_fit_are_refused():
    scores, kept, losses, covariates = case()
    with pytest.raises(InputError, match="the reference 'other' is no method"):
        compare(NAMES, scores, kept, losses, covariates, "other")
    with pytest.raises(InputError, match="2 names, 2 of them different, for the scores of 3"):
        compare(NAMES[:2], scores, kept, losses, covariates, "good")
    with pytest.raises(InputError, match="3 names, 2 of them different"):
        compare(["a", "a", "b"], scores, kept, losses, covariates, "a")
