"""Which ways are compared, which variants are added up, and what becomes of scores and costs."""

import numpy as np
import pytest

from configs.arrays import get_config
from tda_jax import keys
from tda_jax.baselines import ways
from tda_jax.baselines.contract import Passes
from tda_jax.baselines.pairs import sum_of_both
from tda_jax.evaluation import truth_methods
from tda_jax.evaluation.truth_methods import USUAL
from tda_jax.evaluation.truth_scores import Scored, with_pairs

GROUPS = {"transformer": "block/.*", "all": ".*", "cross_attention": "block/attn2/.*"}
RIVALS = {f"D-TRAK {g} {c}": f"D-TRAK {g}" for g in ("transformer", "all") for c in ("0.1", "1")}


def own(chosen):
    budget = truth_methods.Budget(keys.Draws(1, 10), 20, 2, chosen)
    return ways.variants(truth_methods.own_plan(GROUPS, budget))


def test_the_usual_way_is_the_default_of_the_card():
    card = get_config()
    assert card.method == "linearised"
    assert (card.damping, card.rise) == (USUAL.way.damping, USUAL.rise)
    assert (card.group, card.weighting) == (USUAL.way.group, USUAL.weighting)


@pytest.mark.parametrize("chosen", ["all", "few"])
def test_the_default_stands_in_the_middle(chosen):
    variants = own(chosen)
    assert USUAL.name in variants
    told = {(v.rule, v.shared) for v in variants.values() if v.way == USUAL.way}
    assert told == {(r, False) for r in ("exact", "both", "odd", "even", "learnt")} | {
        ("exact", True)
    }
    assert {v.way.damping for v in variants.values() if v.way.group == "transformer"} > {
        USUAL.way.damping / 10,
        USUAL.way.damping * 10,
    }
    for changed in ({"fisher": "probe"}, {"scrambled": True}, {"group": "all"}):
        assert USUAL._replace(way=USUAL.way._replace(**changed)).name in variants


def test_every_kind_of_pair_is_tried_with_every_d_trak():
    method = dict.fromkeys(own("few"), "unlearning") | RIVALS
    method |= {"TRAK all 1": "TRAK all", "latent similarity": "latent similarity"}
    found = truth_methods.pairs(method | {"MUCS": "MUCS", "MUCS difference": "MUCS"})
    assert set(found[truth_methods.PAIRED].values()) == {(USUAL.name, r) for r in RIVALS}
    assert {k: len(some) for k, some in found.items()} == {
        truth_methods.PAIRED: 4,
        "MUCS and D-TRAK": 8,
        "latent similarity and D-TRAK (control)": 4,
    }
    assert not any(truth_methods.pairs({USUAL.name: "unlearning"}).values())
    families = truth_methods.families({"a + b": truth_methods.PAIRED}, {})
    assert families["a + b"] == truth_methods.PAIRED
    assert truth_methods.PAIRED not in truth_methods.DEFAULTS


def test_a_pair_has_the_sum_of_scores_and_of_costs():
    rng = np.random.default_rng(0)
    scores = {name: rng.standard_normal((2, 5)) for name in "ab"}
    cost = {"a": Passes(1.0, 20.0), "b": Passes(300.0, 4000.0)}
    over = np.array([[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]], bool)
    given = Scored(scores, {"a": "A", "b": "B"}, cost)
    got = with_pairs(given, {"both of them": {"a + b": ("a", "b")}}, over)
    np.testing.assert_array_equal(got.scores["a + b"], sum_of_both(*scores.values(), over))
    assert got.cost["a + b"] == Passes(301.0, 4020.0)
    assert got.method == {"a": "A", "b": "B", "a + b": "both of them"}
    assert set(given.scores) == {"a", "b"}
