import numpy as np
import pytest

from tda_jax.evaluation.ranking import auc
from tda_jax.evaluation.relations import matched_auc, metrics, relations
from tda_jax.evaluation.synthetic import mates, synthetic_corpus

CORPUS = synthetic_corpus(0, 4, 4, 4, 4, 1)
QUERY = "work02-v01"
LIKENESS = np.random.default_rng(0).random(len(CORPUS.ids))
FOUND = relations(CORPUS, QUERY, LIKENESS)


def test_each_set_shares_what_its_name_says():
    def shared(part, factor):
        return mates(CORPUS, QUERY, factor)[part]

    row = CORPUS.ids.index(QUERY)
    expected = {
        "relatives": (True, False, True, 3),
        "captions": (False, True, True, 3),
        "neither": (False, False, True, 9),
        "decoy_relatives": (True, False, False, 3),
        "decoy_neither": (False, False, False, 12),
    }
    for name, (work, caption, member, count) in expected.items():
        part = getattr(FOUND, name)
        assert part.sum() == count, name
        assert not part[row], name
        assert (shared(part, "work") == work).all(), name
        assert (shared(part, "caption") == caption).all(), name
        assert (CORPUS.members[part] == member).all(), name
    assert (FOUND.other_works == (FOUND.captions | FOUND.neither)).all()
    assert FOUND.query.sum() == 1


def test_only_pairs_that_are_as_high_in_the_factor_count():
    scores = np.array([3.0, 1.0, 2.0, 0.0])
    better, worse = np.array([1, 1, 0, 0], bool), np.array([0, 0, 1, 1], bool)
    factor = np.array([0.0, 1.0, 0.9, 0.05])
    assert matched_auc(scores, better, worse, factor, 9.0) == auc(scores[:2], scores[2:]) == 0.75
    assert matched_auc(scores, better, worse, factor, 0.2) == 0.5  # 3 > 0, 1 < 2
    assert np.isnan(matched_auc(scores, better, worse, factor, 0.01))
    ties = np.zeros(4)
    assert matched_auc(ties, better, worse, factor, 9.0) == 0.5
    scores[1] = np.nan
    assert matched_auc(scores, better, worse, factor, 9.0) == 1.0


def test_no_decoy_stands_before_the_query_in_its_own_rank():
    high = np.where(FOUND.query, 1.0, np.where(CORPUS.members, 0.0, 2.0))
    assert metrics(high, FOUND, 9.0)["self_rank"] == 1.0


def test_a_perfect_retrieval_of_each_set():
    values = metrics(np.where(FOUND.relatives | FOUND.query, 1.0, 0.0), FOUND, 9.0)
    assert values["self_rank"] == 2.5  # tied with its three relatives
    assert values["relatives"] == 1.0
    assert values["captions"] == 0.5
    assert values["decoys"] == 1.0
    assert values["unrelated"] == 0.5
    assert values["own_members"] == 0.5
    captions = metrics(np.where(FOUND.captions, 1.0, 0.0), FOUND, 9.0)
    assert captions["captions"] == 1.0
    assert captions["relatives"] == pytest.approx(0.5 * 9 / 12)  # ties with 9, below 3


def test_membership_without_relation_is_no_own_member():
    values = metrics(np.where(CORPUS.members, 1.0, 0.0), FOUND, 9.0)
    assert (values["decoys"], values["unrelated"], values["own_members"]) == (1.0, 1.0, 0.0)


def test_the_likeness_itself_tells_no_matched_pairs_apart():
    near = metrics(LIKENESS, FOUND, 1e-9)
    assert np.isnan(near["decoys"])
    exact = relations(CORPUS, QUERY, np.zeros(len(CORPUS.ids)))
    assert metrics(exact.likeness, exact, 0.1)["decoys"] == 0.5
