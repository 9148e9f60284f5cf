import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.baselines import similarity
from tda_jax.baselines.similarity import (
    chance,
    condition_similarity,
    latent_similarity,
    log_mel_similarity,
)
from tda_jax.errors import InputError
from tda_jax.examples import Example
from tda_jax.models.denoiser import Condition


def examples(seed, n, frames=5, condition=None):
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, frames, 3, 2)).astype(np.float32)
    mask = (np.arange(frames) < rng.integers(2, frames + 1, n)[:, None]).astype(np.float32)
    return Example(latent, condition, mask)


def plain_cosine(x, y):
    dot, xx, yy = 0.0, 0.0, 0.0
    for a, b in zip(x, y, strict=True):
        dot, xx, yy = dot + a * b, xx + a * a, yy + b * b
    return dot / (xx * yy) ** 0.5


def flat(examples, i, frames):
    return [float(x) for f in frames for x in examples.latent[i, f].ravel()]


def test_latent_similarity_is_a_plain_cosine_over_frames_valid_in_both(monkeypatch):
    monkeypatch.setattr(similarity, "_BLOCK", 3)  # tracks come in blocks of 3, 3 and 1
    queries, corpus = examples(0, 2), examples(1, 7)
    result = latent_similarity(queries, corpus)
    assert result.dtype == np.float64
    for q in range(2):
        for i in range(7):
            both = [f for f in range(5) if queries.mask[q, f] and corpus.mask[i, f]]
            expected = plain_cosine(flat(queries, q, both), flat(corpus, i, both))
            assert result[q, i] == pytest.approx(expected, rel=1e-12)


def test_padding_and_gain_play_no_part():
    queries, corpus = examples(0, 2), examples(1, 7)
    louder = 4 * corpus.latent
    louder[corpus.mask == 0] = 99.0
    np.testing.assert_allclose(
        latent_similarity(queries, corpus),
        latent_similarity(queries, corpus._replace(latent=louder)),
        rtol=1e-12,
    )


def test_a_track_is_most_like_itself():
    corpus = examples(1, 7)
    result = latent_similarity(corpus, corpus)
    np.testing.assert_allclose(np.diag(result), 1.0, rtol=1e-12)
    assert np.all(np.abs(result) <= 1 + 1e-12)


def test_what_has_no_cosine_is_nan():
    corpus = examples(1, 3)
    corpus.latent[0] = 0.0
    corpus.mask[1], corpus.mask[2] = [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]
    result = latent_similarity(corpus, corpus)
    assert np.isnan(result[0]).all()
    assert np.isnan(result[1, 2])
    assert result[1, 1] == pytest.approx(1.0)


def test_other_windows_are_refused():
    with pytest.raises(InputError, match=r"latents of \(5, 3, 2\) and \(6, 3, 2\)"):
        latent_similarity(examples(0, 2), examples(1, 3, frames=6))


def embedded(seed, n, width=4):
    vectors = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return examples(seed, n, condition=Condition(embedding=vectors))


def told(seed, n, masked=True):
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(n, 3, 4)).astype(np.float32)
    mask = np.arange(3) < rng.integers(1, 4, n)[:, None]
    return examples(seed, n, condition=Condition(text=text, text_mask=mask if masked else None))


def test_embeddings_are_compared_by_cosine():
    queries, corpus = embedded(0, 2), embedded(1, 6)
    result = condition_similarity(queries, corpus)
    for q in range(2):
        for i in range(6):
            vectors = (e.condition.embedding[j].tolist() for e, j in ((queries, q), (corpus, i)))
            assert result[q, i] == pytest.approx(plain_cosine(*vectors), rel=1e-6)


@pytest.mark.parametrize("masked", [True, False])
def test_texts_are_compared_by_the_mean_of_their_tokens(masked):
    queries, corpus = told(0, 2, masked), told(1, 6)

    def mean(example, i):
        mask = example.condition.text_mask
        kept = [t for t in range(3) if mask is None or mask[i, t]]
        return [sum(float(example.condition.text[i, t, d]) for t in kept) for d in range(4)]

    result = condition_similarity(queries, corpus)
    for q in range(2):
        for i in range(6):
            expected = plain_cosine(mean(queries, q), mean(corpus, i))
            assert result[q, i] == pytest.approx(expected, rel=1e-6)


def test_a_text_without_tokens_and_a_zero_embedding_are_like_nothing():
    corpus = told(0, 3)
    corpus.condition.text_mask[1] = False
    result = condition_similarity(corpus, corpus)
    assert np.isnan(result[1]).all()
    assert np.isfinite(result[0, [0, 2]]).all()
    corpus = embedded(0, 3)
    corpus.condition.embedding[1] = 0.0
    assert np.isnan(condition_similarity(corpus, corpus)[:, 1]).all()


def test_conditions_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="queries with text of width 4 and tracks with embeddings"):
        condition_similarity(told(0, 2), embedded(0, 3))
    with pytest.raises(InputError, match="of width 4 and tracks with embeddings of width 5"):
        condition_similarity(embedded(0, 2), embedded(0, 3, 5))
    with pytest.raises(InputError, match="a condition of type NoneType"):
        condition_similarity(examples(0, 2), examples(0, 2))


IDS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=6, unique=True)


@settings(deadline=None)
@given(IDS, IDS, st.integers(0, 2**40))
def test_chance_is_a_function_of_seed_query_and_track(queries, tracks, seed):
    scores = chance(queries, tracks, seed)
    assert scores.shape == (len(queries), len(tracks))
    for q, query in enumerate(queries):
        for i, track in enumerate(tracks):
            assert chance([query], [track], seed)[0, 0] == scores[q, i]


def test_chance_is_uniform_and_changes_with_the_seed():
    queries, tracks = [f"q{i}" for i in range(20)], [f"t{i}" for i in range(1000)]
    scores, others = chance(queries, tracks, 0), chance(queries, tracks, 1)
    counts = np.histogram(scores, bins=20, range=(0, 1))[0]
    assert np.sum((counts - 1000) ** 2 / 1000) < 43.8  # chi-squared, 19 degrees, 0.1 %
    assert abs(np.corrcoef(scores.ravel(), others.ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(scores)[0, 1:]).max() < 0.15


def test_log_mel_similarity_is_a_cosine_of_numbers_standardised_over_the_corpus():
    rng = np.random.default_rng(3)
    corpus, queries = rng.normal(size=(6, 2, 3)), rng.normal(size=(2, 2, 3))
    corpus[:, 1, 2] = 0.5  # what no track differs in is left out
    found = log_mel_similarity(queries, corpus)
    flat = [[x for row in one for x in row][:5] for one in corpus.tolist()]
    asked = [[x for row in one for x in row][:5] for one in queries.tolist()]
    middle = [sum(column) / 6 for column in zip(*flat, strict=True)]
    spread = [
        (sum((x - m) ** 2 for x in column) / 6) ** 0.5
        for column, m in zip(zip(*flat, strict=True), middle, strict=True)
    ]

    def standard(row):
        return [(x - m) / s for x, m, s in zip(row, middle, spread, strict=True)]

    for q in range(2):
        for i in range(6):
            expected = plain_cosine(standard(asked[q]), standard(flat[i]))
            assert found[q, i] == pytest.approx(expected, rel=1e-9)
    # Louder recordings, or another equaliser for all of them, change nothing.
    shifted = log_mel_similarity(3 * queries + 1, 3 * corpus + 1)
    np.testing.assert_allclose(shifted, found, rtol=1e-9)
    with pytest.raises(InputError, match="have no cosine"):
        log_mel_similarity(queries[:, :, :2], corpus)
