"""What does not depend on a draw is computed once per track: read off the compiled programs."""

import re

import jax
import numpy as np
import pytest

from tda_jax import devices, keys
from tda_jax.attribution import contract, linearised, rows, sweep
from tests.attribution import small

TRACKS = 2
USED = devices.local_devices(1)


@pytest.fixture(scope="module")
def model():
    return small.model()


def batch(draws):
    """One batch of rows: TRACKS tracks with all their draws."""
    words = np.zeros((TRACKS, 2), np.uint32)
    examples = small.corpus(TRACKS).examples
    row = rows.rows_of(examples, words, draws.count, draws.count)(np.arange(TRACKS))
    return jax.tree.map(lambda x: x[None], row)


def elements(mapped, layer, *arguments):
    """How many numbers the matrix products of a layer give, in the compiled program."""
    text = mapped.step.lower(*arguments).compile().as_text()
    found = [
        int(np.prod([int(n) for n in m[1].split(",")]))
        for m in re.finditer(rf"= f32\[([\d,]+)\].* dot\(.*op_name=\"[^\"]*{layer}/", text)
    ]
    assert found, f"no product of {layer} in the program"
    return sum(found)


def sweep_elements(model, layer, draws):
    made = sweep.make_sweep(model, draws, 0, draws.count * TRACKS, USED)
    moved, rest = contract.split_group(model, "cross_attention_kv")
    shared = sweep.place(made, moved, rest), sweep.place_step(made, moved)
    return elements(made.mapped, layer, shared, batch(draws))


def linear_elements(model, layer, draws, queries):
    made = linearised.make_linearised(model, draws, 0, draws.count * TRACKS, USED)
    moved, rest = contract.split_group(model, "cross_attention_kv")
    along = jax.tree.map(lambda x: np.zeros((queries, 2, *x.shape), x.dtype), moved)
    shared = linearised.place(made, moved, rest), along
    return elements(made.mapped, layer, shared, batch(draws))


@pytest.mark.parametrize("layer", ["attn2/to_k", "attn2/to_v"])
def test_sweep_projects_the_text_once_for_all_draws(model, layer):
    few, many = keys.Draws(1, 10), keys.Draws(4, 10)
    assert sweep_elements(model, layer, many) == sweep_elements(model, layer, few)
    # The queries of the same attention depend on the draw: the count can tell.
    assert sweep_elements(model, "attn2/to_q", many) == 4 * sweep_elements(model, "attn2/to_q", few)


def test_linearised_pass_projects_the_text_once_for_all_draws(model):
    few, many = keys.Draws(1, 10), keys.Draws(4, 10)
    once = linear_elements(model, "attn2/to_k", few, 1)
    assert linear_elements(model, "attn2/to_k", many, 1) == once
    # One primal product, and one for each direction: the primal pass does not repeat itself.
    primal = sweep_elements(model, "attn2/to_k", few)
    assert once == primal * (1 + 2)
    assert linear_elements(model, "attn2/to_k", few, 3) == primal * (1 + 6)


def test_primal_pass_runs_once_for_all_directions(model):
    """Products before the first moved layer have no tangent: their number is that of a sweep."""
    draws = keys.Draws(1, 10)
    primal = sweep_elements(model, "time_embedding/linear_1", draws)
    assert linear_elements(model, "time_embedding/linear_1", draws, 3) == primal
