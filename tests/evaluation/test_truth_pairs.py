"""Which variants are added up, and what becomes of their scores and costs."""

import numpy as np

from tda_jax import keys
from tda_jax.baselines import ways
from tda_jax.baselines.contract import Passes
from tda_jax.baselines.pairs import sum_of_both
from tda_jax.evaluation import truth_methods
from tda_jax.evaluation.truth_scores import Scored, with_pairs

GROUPS = {"transformer": "block/.*", "all": ".*", "cross_attention": "block/attn2/.*"}
BUDGET = truth_methods.Budget(keys.Draws(1, 10), 20, 2)
OWN = ways.variants(truth_methods.own_plan(GROUPS, BUDGET))
METHOD = dict.fromkeys(OWN, "unlearning")
METHOD |= {f"D-TRAK {g} {c}": f"D-TRAK {g}" for g in ("transformer", "all") for c in ("0.1", "1")}
METHOD |= {"TRAK all 1": "TRAK all", "latent similarity": "latent similarity"}


def test_unlearning_at_its_defaults_goes_with_d_trak_of_the_same_parameters():
    found = truth_methods.pairs(METHOD, OWN)
    wanted = {
        (f"both {g} c=0.01 rho={rise} uniform", f"D-TRAK {g} {c}")
        for g in ("transformer", "all")
        for rise in ("0.03", "0.1", "0.3", "1")
        for c in ("0.1", "1")
    }
    assert set(found[truth_methods.PAIRED].values()) == wanted
    control = found[truth_methods.PAIRED_CONTROL].values()
    assert {one for one, _ in control} == {"latent similarity"}
    assert len(control) == 4
    families = truth_methods.families(METHOD | {"a + b": truth_methods.PAIRED}, OWN)
    assert families["a + b"] == truth_methods.PAIRED not in truth_methods.DEFAULTS


def test_without_d_trak_there_are_no_pairs():
    assert not any(truth_methods.pairs(dict.fromkeys(OWN, "unlearning"), OWN).values())


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
