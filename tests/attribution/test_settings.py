"""Settings that cannot be carried out are refused before any work, with value and remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import examples
from tda_jax.attribution.settings import Settings, refuse
from tda_jax.errors import InputError
from tests.attribution import tiny

MODEL = tiny.model(dtype=np.float32)
CORPUS = tiny.corpus(5, dtype=np.float32)
GOOD = Settings(5, "attention")


def test_defaults_are_accepted():
    refuse(MODEL, CORPUS, CORPUS, GOOD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": "cross_attention"}, "no parameter group 'cross_attention'.*'attention'"),
        ({"corpus_size": 4}, "N = 4 is smaller than the 5 training tracks"),
        ({"strata": 15}, "strata = 15"),
        ({"strata": 0}, "strata = 0"),
        ({"replicates": 3}, "replicates = 3; give 4 at least"),
        ({"blocks": 1}, "blocks = 1; give 2"),
        ({"query_draws": 100}, "100 is no multiple of blocks = 8"),
        ({"rise": 0.0}, "rise = 0.0"),
        ({"rise": float("inf")}, "rise = inf"),
        ({"damping": -1.0}, "damping = -1"),
        ({"damping": float("nan")}, "damping = nan"),
        ({"rate": 0.0}, "rate = 0.0"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"steps": 0}, "steps = 0"),
        ({"steps": 2}, "steps = 2 needs method = 'exact'"),
        ({"steps": 2, "method": "exact"}, "steps = 2 with rate = None"),
        ({"steps": 2, "method": "exact", "rate": 1.0}, "give a raw learning rate between"),
        ({"dtype": "bfloat16", "method": "exact"}, "rounds a small step away"),
        ({"frames": True}, "frames = True needs method = 'exact'"),
        ({"method": "both"}, "method = 'both'"),
        ({"dtype": "float64"}, "needs jax_enable_x64"),
        ({"dtype": "float16"}, "dtype = 'float16'"),
        ({"weighting": "best"}, "weighting = 'best'"),
        ({"fisher_tracks": 6}, "fisher_tracks = 6; give 1 to 5"),
        ({"fisher_draws": 0}, "fisher_draws = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_what_cannot_be_carried_out(change, message):
    with pytest.raises(InputError, match=message):
        refuse(MODEL, CORPUS, CORPUS, GOOD._replace(**change))


def test_a_pattern_that_selects_nothing():
    model = MODEL._replace(groups={"attention": "attn/.*"})
    with pytest.raises(InputError, match="selects none of 7 parameters"):
        refuse(model, CORPUS, CORPUS, GOOD)


def test_parameters_in_half_precision():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), MODEL.params)
    with pytest.raises(InputError, match=r"parameters of 16 bits \(.* is bfloat16, 7 in all\)"):
        refuse(MODEL._replace(params=half), CORPUS, CORPUS, GOOD)


def test_exact_float64_needs_parameters_in_float64():
    with jax.enable_x64(True), pytest.raises(InputError, match="needs parameters in float64"):
        refuse(MODEL, CORPUS, CORPUS, GOOD._replace(method="exact", dtype="float64"))


def test_no_query():
    with pytest.raises(InputError, match="no query is given"):
        refuse(MODEL, CORPUS, examples.take(CORPUS, []), GOOD)


def test_a_corpus_of_decoys():
    decoys = CORPUS._replace(members=np.zeros(5, bool))
    with pytest.raises(InputError, match="every track is a decoy"):
        refuse(MODEL, decoys, CORPUS, GOOD)


def test_queries_of_another_shape():
    latents = np.zeros((1, tiny.FRAMES + 1, tiny.WIDTH, tiny.CHANNELS), np.float32)
    text = np.zeros((1, tiny.TOKENS, tiny.TEXT), np.float32)
    longer = examples.corpus_of(["q"], latents, text)
    with pytest.raises(InputError, match=r"queries have latents \(7, 2, 3\).*\(6, 2, 3\)"):
        refuse(MODEL, CORPUS, longer, GOOD)


def test_queries_with_other_conditions():
    latents = np.zeros((1, tiny.FRAMES, tiny.WIDTH, tiny.CHANNELS), np.float32)
    for condition in (None, np.zeros((1, 2, tiny.TEXT), np.float32)):
        other = examples.corpus_of(["q"], latents, condition)
        with pytest.raises(InputError, match="queries have conditions"):
            refuse(MODEL, CORPUS, other, GOOD)
