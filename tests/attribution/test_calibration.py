import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tda_jax.attribution import calibration
from tda_jax.attribution.calibration import (
    decoy_match,
    empirical_p_values,
    minus_common,
    q_values,
)
from tda_jax.errors import InputError
from tda_jax.examples import corpus_of

NAN = float("nan")


def plain_p(scores, members):
    result = []
    for i, s in enumerate(scores):
        decoys = [scores[j] for j in range(len(scores)) if not members[j] and j != i]
        decoys = [d for d in decoys if d == d]
        known = s == s and decoys
        result.append((1 + sum(d >= s for d in decoys)) / (1 + len(decoys)) if known else NAN)
    return result


def plain_q(scores, members):
    """The least false-discovery rate over every threshold that lets the member in."""
    targets = [s for s, m in zip(scores, members, strict=True) if m and s == s]
    decoys = [s for s, m in zip(scores, members, strict=True) if not m and s == s]
    result = []
    for s, m in zip(scores, members, strict=True):
        if not m or s != s or not decoys:
            result.append(NAN)
            continue
        rates = [
            len(targets)
            * (1 + sum(d >= t for d in decoys))
            / (1 + len(decoys))
            / sum(x >= t for x in targets)
            for t in targets
            if t <= s
        ]
        result.append(min(rates))
    return result


# Few values, so that ties are common.
SCORES = st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0, NAN]), st.booleans()), max_size=9)


@given(SCORES)
def test_p_and_q_values_are_plain_counts(rows):
    scores = np.array([s for s, _ in rows], float)
    members = np.array([m for _, m in rows], bool)
    np.testing.assert_allclose(empirical_p_values(scores, members), plain_p(scores, members))
    np.testing.assert_allclose(q_values(scores, members), plain_q(scores, members))


def test_p_values_by_hand():
    scores = np.array([3.0, 2.0, 1.0, 2.0, 0.0])  # three members, two decoys
    members = np.array([True, True, True, False, False])
    # A tie counts against; the decoys are compared with each other only.
    expected = [1 / 3, 2 / 3, 2 / 3, 1 / 2, 2 / 2]
    np.testing.assert_allclose(empirical_p_values(scores, members), expected)
    np.testing.assert_allclose(q_values(scores, members), [2 / 3, 2 / 3, 2 / 3, NAN, NAN])


def test_without_a_decoy_nothing_is_said():
    scores, members = np.arange(3.0), np.ones(3, bool)
    assert np.isnan(empirical_p_values(scores, members)).all()
    assert np.isnan(q_values(scores, members)).all()
    # A lone decoy can be compared with, but with nothing itself.
    one = empirical_p_values(scores, np.array([True, True, False]))
    np.testing.assert_allclose(one, [1.0, 1.0, NAN])


@given(st.integers(0, 999))
def test_q_values_are_the_adjusted_p_values_of_benjamini_and_hochberg(seed):
    rng = np.random.default_rng(seed)
    members = np.arange(60) < 40
    scores = rng.normal(size=60) + members * rng.integers(0, 3, size=60)
    p = empirical_p_values(scores, members)[members]
    expected = scipy.stats.false_discovery_control(p)
    np.testing.assert_allclose(q_values(scores, members)[members], expected, rtol=1e-12)


@given(st.integers(0, 999))
def test_a_higher_score_never_has_a_higher_p_or_q(seed):
    rng = np.random.default_rng(seed)
    members = rng.random(50) < 0.6
    scores = np.round(rng.normal(size=50), 1)
    order = np.argsort(scores[members])
    for values in (empirical_p_values(scores, members), q_values(scores, members)):
        assert np.all(np.diff(values[members][order]) <= 1e-15)


def test_p_values_of_tracks_like_the_decoys_are_uniform():
    """Each is k / 20 for k in 1 .. 20 with the same chance, members and decoys alike."""
    rng = np.random.default_rng(0)
    members = np.arange(39) < 20
    found = np.array([empirical_p_values(rng.normal(size=39), members) for _ in range(4000)])
    for part, levels in ((found[:, :1], 20), (found[:, -1:], 19)):
        counts = np.bincount(np.rint(part * levels).astype(int).ravel(), minlength=levels + 1)
        assert counts[0] == 0
        assert scipy.stats.chisquare(counts[1:]).pvalue > 0.001


@pytest.mark.parametrize("level", [0.1, 0.3])
def test_the_false_discovery_rate_is_kept(level):
    rng = np.random.default_rng(1)
    targets, true, decoys, runs = 200, 50, 400, 400
    members = np.arange(targets + decoys) < targets
    share, found = [], []
    for _ in range(runs):
        scores = rng.normal(size=targets + decoys)
        scores[:true] += 3
        let_in = q_values(scores, members)[:targets] <= level
        share.append(let_in[true:].sum() / max(let_in.sum(), 1))
        found.append(let_in[:true].mean())
    # Promised is level; Benjamini-Hochberg gives level times the share of nulls, 0.75.
    assert np.mean(share) <= level
    assert np.mean(share) == pytest.approx(0.75 * level, abs=4 * np.std(share) / np.sqrt(runs))
    assert np.mean(found) > 0.5


def test_where_nothing_is_true_little_is_found():
    rng = np.random.default_rng(2)
    members = np.arange(200) < 100
    any_found = [np.any(q_values(rng.normal(size=200), members) <= 0.1) for _ in range(1000)]
    assert np.mean(any_found) <= 0.1 + 3 * np.sqrt(0.09 / 1000)


def plain_common(row, references):
    result = []
    for i, s in enumerate(row):
        known = sorted(r[i] for r in references if r[i] == r[i])
        if len(known) < 4:
            result.append(NAN)
            continue
        mad = np.median([abs(k - np.median(known)) for k in known])
        result.append((s - np.median(known)) / (1.4826 * mad) if mad > 0 else NAN)
    return result


def test_what_is_common_is_a_plain_median_of_the_other_queries():
    scores = np.random.default_rng(0).normal(size=(6, 5))
    scores[2, 1] = NAN
    scores[:3, 3] = NAN  # of track 3, three scores are left: too few
    expected = [plain_common(scores[q], np.delete(scores, q, 0)) for q in range(6)]
    np.testing.assert_allclose(minus_common(scores), expected)
    assert np.isnan(minus_common(scores)[:, 3]).all()
    assert np.isfinite(minus_common(scores)[:, 0]).all()


@given(
    hnp.arrays(
        np.int8, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.integers(-3, 3)
    )
)
def test_what_is_common_where_scores_are_equal_or_missing(whole):
    """Few distinct values, so that ties, missing scores and spreads of 0 come up."""
    scores = np.where(whole == -3, NAN, whole.astype(np.float64))
    expected = [plain_common(scores[q], np.delete(scores, q, 0)) for q in range(len(scores))]
    np.testing.assert_allclose(minus_common(scores), expected)


def test_what_is_common_does_not_depend_on_blocks(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(7, 50))
    whole = minus_common(scores)
    monkeypatch.setattr(calibration, "_BLOCK", 8)
    np.testing.assert_array_equal(minus_common(scores), whole)


def test_reference_queries_of_their_own():
    rng = np.random.default_rng(0)
    scores, reference = rng.normal(size=(2, 5)), rng.normal(size=(7, 5))
    expected = [plain_common(row, reference) for row in scores]
    np.testing.assert_allclose(minus_common(scores, reference), expected)


def test_a_track_that_comes_up_for_every_query_is_brought_down():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(16, 50))
    scores[:, 7] += 20  # a hub
    scores[3, 9] += 10  # a track that one query used
    assert np.argmax(scores[3]) == 7
    assert np.argmax(minus_common(scores)[3]) == 9
    shifted = minus_common(scores + 5 * rng.normal(size=50))
    np.testing.assert_allclose(shifted, minus_common(scores), rtol=1e-6, atol=1e-9)


def test_the_unit_is_a_standard_deviation_of_normal_scores():
    reference = 3 + 2 * np.random.default_rng(0).normal(size=(100_000, 1))
    np.testing.assert_allclose(minus_common(np.array([[5.0]]), reference), [[1.0]], rtol=0.02)


@pytest.mark.parametrize("queries", [1, 4])
def test_too_few_queries_have_nothing_in_common(queries):
    scores = np.random.default_rng(0).normal(size=(queries, 3))
    assert np.isnan(minus_common(scores)).all()


def test_references_that_do_not_differ_give_nan():
    reference = np.zeros((9, 2))
    reference[:, 1] = np.arange(9)
    result = minus_common(np.ones((1, 2)), reference)
    assert np.isnan(result[0, 0])
    assert np.isfinite(result[0, 1])


def test_references_of_other_tracks_are_refused():
    with pytest.raises(InputError, match="of 2 tracks for 3"):
        minus_common(np.ones((5, 3)), np.ones((5, 2)))


def corpus(seed, members, decoys, scale=1.0, shortest=4):
    """Decoys that may be louder or have other lengths."""
    rng = np.random.default_rng(seed)
    n = members + decoys
    member = np.arange(n) < members
    latents = rng.normal(size=(n, 6, 2, 3)).astype(np.float32)
    latents[~member] *= scale
    lengths = np.where(member, rng.integers(4, 7, n), rng.integers(shortest, 7, n))
    masks = (np.arange(6) < lengths[:, None]).astype(np.float32)
    return corpus_of([f"{i:03d}" for i in range(n)], latents, None, masks, member)


def test_a_match_by_hand():
    made = corpus(0, 3, 2)
    loss = np.array([1.0, 2.0, 3.0, 5.0, 7.0])
    match = decoy_match(made, loss)
    pooled = np.sqrt((1.0 + 2.0) / 2)
    assert match["loss_before"].standardised == pytest.approx((2 - 6) / pooled)
    error = np.sqrt(1 / 3 + 1 / 2 + (4 / pooled) ** 2 / 10)
    assert match["loss_before"].standard_error == pytest.approx(error)
    rms = []
    for latent, mask in zip(made.examples.latent, made.examples.mask, strict=True):
        kept = [float(x) ** 2 for f in range(6) if mask[f] for x in latent[f].ravel()]
        rms.append((sum(kept) / len(kept)) ** 0.5)
    spread = np.sqrt((np.var(rms[:3], ddof=1) + np.var(rms[3:], ddof=1)) / 2)
    difference = (np.mean(rms[:3]) - np.mean(rms[3:])) / spread
    assert match["latent_rms"].standardised == pytest.approx(difference, rel=1e-6)


def test_decoys_that_match_are_within_the_standard_error():
    inside = []
    for seed in range(200):
        match = decoy_match(corpus(seed, 60, 30), np.random.default_rng(seed).normal(size=90))
        inside += [abs(d.standardised) < 2 * d.standard_error for d in match.values()]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_decoys_that_do_not_match_show():
    loud = decoy_match(corpus(0, 60, 30, scale=1.5), np.zeros(90))
    assert loud["latent_rms"].standardised < -2
    assert np.isnan(loud["loss_before"].standardised)  # all the same
    short = decoy_match(corpus(0, 60, 30, shortest=1), np.zeros(90))["valid_frames"]
    assert short.standardised > 2 * short.standard_error
    apart = decoy_match(corpus(0, 60, 30), np.where(np.arange(90) < 60, 2.0, 1.0))["loss_before"]
    assert (apart.standardised, apart.standard_error) == (np.inf, 0.0)


def test_one_decoy_cannot_be_compared():
    assert np.isnan(decoy_match(corpus(0, 5, 1), np.ones(6))["latent_rms"].standardised)
