"""Figures of retrieval, against sets that are counted by hand."""

import json

import numpy as np
import pytest

from tda_jax.errors import InputError
from tda_jax.evaluation import retrieval

IDS = ["q", "kin1", "kin2", "mate", "far1", "far2", "decoy kin", "decoy far"]
WORKS = dict(zip(IDS, ["A", "A", "A", "B", "C", "C", "A", "D"], strict=True))
SAID = ["slow", "fast", "low", "slow", "fast", "high", "low", "high"]


def columns(score, likeness=None, said=None):
    return {
        "id": IDS,
        "member": [True] * 6 + [False] * 2,
        "score": score,
        "caption": said or SAID,
        "log_mel_similarity": likeness or [0.0] * 8,
    }


def figures(found, method="unlearning"):
    return {name: values[0] for name, values in found[method].items()}


def test_each_figure_is_of_the_pairs_that_it_names():
    #        q    kin1 kin2 mate far1 far2 decoys
    score = [5.0, 3.0, 1.0, 2.0, 0.5, 6.0, 2.5, 9.0]
    found = figures(retrieval.of_queries({"q": columns(score)}, WORKS))
    assert found["self_influence_mean_rank"] == 2.0  # far2 is above; decoys have no rank
    # kin1 > mate, far1; kin2 > far1; of 2 · 3 pairs with members of other works
    assert found["relatives_auc"] == 3 / 6
    assert found["caption_mates_auc"] == 1 / 2  # mate > far1, mate < far2
    assert found["member_auc"] == 1 / 2  # kin1 > decoy kin, kin2 < decoy kin


def test_members_are_held_against_decoys_as_like_the_query_only():
    score = [5.0, 3.0, 1.0, 2.0, 0.5, 6.0, 2.5, 9.0]
    likeness = [1.0, 0.9, 0.4, 0.0, 0.0, 0.0, 0.45, 0.0]
    found = retrieval.of_queries({"q": columns(score, likeness)}, WORKS)
    assert figures(found)["member_auc"] == 0.0  # kin2 alone is near the decoy
    assert figures(found, "log-mel similarity")["member_auc"] == 0.0
    assert figures(found, "log-mel similarity")["self_influence_mean_rank"] == 1.0


def test_several_captions_are_shared_if_one_is():
    said = ["slow", json.dumps(["slow", "x"]), *SAID[2:]]
    found = retrieval.of_queries({"q": columns(list(range(8)), said=said)}, WORKS)
    plain = retrieval.of_queries({"q": columns(list(range(8)))}, WORKS)
    # Under one of the query's own captions kin1 is no relative any more: kin2 alone is left.
    assert figures(found)["relatives_auc"] == 0.0
    assert figures(plain)["relatives_auc"] == 0.0
    low = [9, 8, 0, 1, 1, 1, 1, 1]
    assert figures(retrieval.of_queries({"q": columns(low)}, WORKS))["relatives_auc"] == 0.5
    changed = retrieval.of_queries({"q": columns(low, said=said)}, WORKS)
    assert figures(changed)["relatives_auc"] == 0.0


def test_a_method_stands_there_if_every_table_has_its_column():
    tables = {"q": columns(np.arange(8.0)) | {"latent_similarity": np.zeros(8)}}
    assert list(retrieval.of_queries(tables, WORKS)) == [
        "unlearning",
        "log-mel similarity",
        "latent similarity",
    ]


def test_rows_have_means_with_intervals_and_chance():
    values = {"unlearning": {name: np.array([1.0, 3.0, np.nan]) for name in retrieval.METRICS}}
    values["unlearning"]["member_auc"] = np.array([np.nan] * 3)
    by_chance = retrieval.chance({"q": columns(list(range(8)))})
    assert by_chance == {
        "self_influence_mean_rank": 3.5,  # of six members
        "relatives_auc": 0.5,
        "caption_mates_auc": 0.5,
        "member_auc": 0.5,
    }
    own, luck = retrieval.as_json(retrieval.rows(values, by_chance))
    assert own["member_auc"] is None
    assert own["relatives_auc"]["mean"] == 2.0
    assert own["relatives_auc"]["count"] == 2
    assert own["relatives_auc"]["high"] == pytest.approx(2 + 12.706, abs=1e-3)  # t of one degree
    assert luck["self_influence_mean_rank"]["mean"] == 3.5


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(InputError, match="no member of its own table"):
        retrieval.of_queries({"decoy kin": columns(list(range(8)))}, WORKS)
    with pytest.raises(InputError, match=r"works of \['q'\] are not known"):
        retrieval.of_queries({"q": columns(list(range(8)))}, {k: WORKS[k] for k in IDS[1:]})
