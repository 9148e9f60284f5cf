import collections

import numpy as np
import pytest

from tda_jax.attribution.calibration import decoy_match
from tda_jax.baselines.similarity import condition_similarity, latent_similarity
from tda_jax.errors import InputError
from tda_jax.evaluation.synthetic import SILENCE, mates, query_ids, synthetic_corpus
from tda_jax.examples import take


@pytest.fixture(scope="module")
def corpus():
    return synthetic_corpus(0)


def column(corpus, key, rows=None):
    rows = range(len(corpus.ids)) if rows is None else rows
    return [corpus.metadata[i][key] for i in rows]


def members(corpus):
    return take(corpus, np.flatnonzero(corpus.members))


def decoys(corpus):
    return take(corpus, np.flatnonzero(~corpus.members))


def test_shapes_and_numbers(corpus):
    assert len(members(corpus).ids) == 16 * 8
    splits = collections.Counter(column(decoys(corpus), "split"))
    assert splits == {"held_out": 16 * 2, "unseen": 4 * 2}
    assert set(column(members(corpus), "split")) == {"member"}
    n = len(corpus.ids)
    assert corpus.examples.latent.shape == (n, 8, 8, 4)
    assert corpus.examples.latent.dtype == np.float32
    assert corpus.examples.condition.text.shape == (n, 4, 16)
    assert corpus.examples.condition.text.dtype == np.float32
    assert corpus.examples.condition.text_mask.dtype == bool
    assert corpus.examples.condition.embedding is None


@pytest.mark.parametrize(("variants", "captions"), [(8, 8), (8, 4), (6, 3), (3, 1)])
def test_every_work_has_every_caption_equally_often(variants, captions):
    made = members(synthetic_corpus(1, works=5, variants=variants, captions=captions))
    pairs = collections.Counter(zip(column(made, "work"), column(made, "caption"), strict=True))
    assert len(pairs) == 5 * captions
    assert set(pairs.values()) == {variants // captions}


def test_decoys_have_the_works_and_captions_of_members_or_works_of_their_own(corpus):
    works, captions = set(column(members(corpus), "work")), set(column(corpus, "caption"))
    by_split = collections.defaultdict(list)
    for entry in decoys(corpus).metadata:
        by_split[entry["split"]].append(entry)
    assert collections.Counter(e["work"] for e in by_split["held_out"]) == dict.fromkeys(works, 2)
    assert not works & {e["work"] for e in by_split["unseen"]}
    for entries in by_split.values():
        counts = collections.Counter(e["caption"] for e in entries)
        assert set(counts) == captions
        assert len(set(counts.values())) == 1


def test_one_track_in_five_is_padded_with_silence(corpus):
    for part in (members(corpus), decoys(corpus)):
        mask = part.examples.mask
        lengths = mask.sum(axis=1)
        assert np.array_equal(mask, np.arange(8) < lengths[:, None])
        assert (lengths < 8).sum() == len(lengths) // 5
        counts = collections.Counter(lengths[lengths < 8])
        assert set(counts) == {4, 5, 6, 7}
        assert max(counts.values()) - min(counts.values()) <= 1
        assert np.all(part.examples.latent[mask == 0] == SILENCE)
        assert not np.any(part.examples.latent[mask == 1] == SILENCE)


def test_short_tracks_are_of_many_works_and_captions(corpus):
    short = np.flatnonzero((corpus.examples.mask.sum(axis=1) < 8) & corpus.members)
    assert len(set(column(corpus, "work", short))) > 8
    assert len(set(column(corpus, "caption", short))) > 5


def test_the_corpus_is_a_function_of_the_seed(corpus):
    again, other = synthetic_corpus(0), synthetic_corpus(1)
    assert again.ids == other.ids == corpus.ids
    np.testing.assert_array_equal(again.examples.latent, corpus.examples.latent)
    np.testing.assert_array_equal(again.examples.mask, corpus.examples.mask)
    same = np.isclose(other.examples.latent, corpus.examples.latent).mean()
    assert same < 0.1  # padding only


def test_more_works_leave_the_others_as_they_are():
    """But for which tracks are short."""
    few, many = synthetic_corpus(3, works=2), synthetic_corpus(3, works=4, unseen_works=6)
    rows = [many.ids.index(i) for i in few.ids]
    both = (few.examples.mask * many.examples.mask[rows]).astype(bool)
    np.testing.assert_array_equal(few.examples.latent[both], many.examples.latent[rows][both])


def test_relatives_and_caption_mates_are_alike_and_not_equal():
    """Of a variance of about 1, texture has 0.25 and what is left of a transformed work 0.31."""
    similarity = collections.defaultdict(list)
    for seed in range(5):
        made = synthetic_corpus(seed)
        cosine = latent_similarity(made.examples, made.examples)
        for i, track in enumerate(made.ids):
            work, caption = mates(made, track, "work"), mates(made, track, "caption")
            others = ~work & ~caption
            others[i] = False
            similarity["work"] += cosine[i, work & ~caption].tolist()
            similarity["caption"] += cosine[i, caption & ~work].tolist()
            similarity["neither"] += cosine[i, others].tolist()
    assert np.mean(similarity["work"]) == pytest.approx(0.31, abs=0.03)
    assert np.mean(similarity["caption"]) == pytest.approx(0.25, abs=0.03)
    assert np.mean(similarity["neither"]) == pytest.approx(0.0, abs=0.03)
    assert max(similarity["work"]) < 0.8


def test_latents_are_of_unit_scale():
    for seed in range(3):
        made = synthetic_corpus(seed)
        kept = made.examples.latent[made.examples.mask == 1]
        assert kept.std() == pytest.approx(1.0, abs=0.1)
        assert kept.mean() == pytest.approx(0.0, abs=0.1)


def test_decoys_differ_from_members_by_chance_only():
    """Over seeds, differences are within two standard errors 19 times in 20."""
    inside = []
    for seed in range(40):
        made = synthetic_corpus(seed, works=8)
        elements = made.examples.latent.astype(np.float64).mean(axis=(1, 2, 3))
        inside += [
            abs(d.standardised) < 2 * d.standard_error for d in decoy_match(made, elements).values()
        ]
    assert np.mean(inside) >= 0.9


def test_captions_are_told_apart_by_their_text(corpus):
    cosine = condition_similarity(corpus.examples, corpus.examples)
    for i, track in enumerate(corpus.ids):
        mate = mates(corpus, track, "caption")
        np.testing.assert_allclose(cosine[i, mate], 1.0, rtol=1e-6)
        mate[i] = True
        assert cosine[i, ~mate].max() < 0.9
    text, mask = corpus.examples.condition.text, corpus.examples.condition.text_mask
    assert set(mask.sum(axis=1)) == {2, 3, 4}
    assert np.all(text[~mask] == 0)
    assert np.all(np.abs(text[mask]).max(axis=-1) > 0)


def test_mates_leave_the_track_itself_out(corpus):
    work = mates(corpus, "work03-v05", "work")
    expected = [f"work03-h{i:02d}" for i in range(2)] + [
        f"work03-v{i:02d}" for i in (0, 1, 2, 3, 4, 6, 7)
    ]
    assert sorted(corpus.ids[i] for i in np.flatnonzero(work)) == expected
    with pytest.raises(InputError, match="no track 'nobody'"):
        mates(corpus, "nobody", "work")
    with pytest.raises(InputError, match="no 'genre'; choose one of"):
        mates(corpus, corpus.ids[0], "genre")


def test_queries_are_members_of_works_in_turn(corpus):
    queries = query_ids(corpus, 40, 0)
    assert len(set(queries)) == 40
    rows = [corpus.ids.index(q) for q in queries]
    assert corpus.members[rows].all()
    works = column(corpus, "work", rows)
    assert len(set(works[:16])) == len(set(works[16:32])) == 16
    assert query_ids(corpus, 5, 0) == queries[:5]
    assert query_ids(corpus, 40, 1) != queries
    assert sorted(query_ids(corpus, 128, 2)) == sorted(members(corpus).ids)
    with pytest.raises(InputError, match="129 queries of 128 members"):
        query_ids(corpus, 129, 0)


def test_counts_that_make_no_corpus_are_refused():
    with pytest.raises(InputError, match="3 captions do not cross with 8 variants"):
        synthetic_corpus(0, captions=3)
    with pytest.raises(InputError, match="works = 0"):
        synthetic_corpus(0, works=0)
    with pytest.raises(InputError, match="held_out = -1"):
        synthetic_corpus(0, held_out=-1)
    assert synthetic_corpus(0, works=2, held_out=0).members.all()
