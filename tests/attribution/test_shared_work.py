"""What does not depend on a draw is computed once per track: read off the compiled programs."""

import functools
import re

import jax
import numpy as np
import pytest

from tda_jax import devices, keys
from tda_jax.attribution import contract, linearised, rows, sweep
from tests.attribution import small
from tests.models import cases

CASE = cases.SMALL["one_level"]
TRACKS = 2
USED = devices.local_devices(1)


def batch(draws):
    """One batch of rows: TRACKS tracks with all their draws."""
    words = np.zeros((TRACKS, 2), np.uint32)
    examples = small.corpus(TRACKS, case=CASE).examples
    row = rows.rows_of(examples, words, draws.count, draws.count)(np.arange(TRACKS))
    return jax.tree.map(lambda x: x[None], row)


@functools.cache
def model():
    return small.model(case=CASE)


@functools.cache
def sweep_program(draws):
    made = sweep.make_sweep(model(), draws, 0, draws.count * TRACKS, USED)
    moved, rest = contract.split_group(model(), "cross_attention_kv")
    shared = sweep.place(made, moved, rest)
    return made.mapped.step.lower(shared, batch(draws)).compile().as_text()


@functools.cache
def linear_program(draws, queries):
    """Along two blocks of each query."""
    made = linearised.make_linearised(model(), draws, 0, draws.count * TRACKS, USED)
    moved, rest = contract.split_group(model(), "cross_attention_kv")
    directions = [jax.tree.map(lambda x: np.zeros((2, *x.shape), x.dtype), moved)] * queries
    shared = linearised.place(made, moved, rest), linearised.place_directions(made, directions)
    return made.mapped.step.lower(shared, batch(draws)).compile().as_text()


def elements(program, layer):
    """How many numbers the matrix products of a layer give, in a compiled program."""
    found = [
        int(np.prod([int(n) for n in m[1].split(",")]))
        for m in re.finditer(rf"= f32\[([\d,]+)\].* dot\(.*op_name=\"[^\"]*{layer}/", program)
    ]
    assert found, f"no product of {layer} in the program"
    return sum(found)


FEW, MANY = keys.Draws(1, 10), keys.Draws(4, 10)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["attn2/to_k", "attn2/to_v"])
def test_sweep_projects_the_text_once_for_all_draws(layer):
    assert elements(sweep_program(MANY), layer) == elements(sweep_program(FEW), layer)
    # The queries of the same attention depend on the draw: the count can tell.
    of_queries = elements(sweep_program(FEW), "attn2/to_q")
    assert elements(sweep_program(MANY), "attn2/to_q") == 4 * of_queries


@pytest.mark.slow
def test_linearised_pass_projects_the_text_once_for_all_draws():
    once = elements(linear_program(FEW, 1), "attn2/to_k")
    assert elements(linear_program(MANY, 1), "attn2/to_k") == once
    # One primal product, and one for each direction: the primal pass does not repeat itself.
    primal = elements(sweep_program(FEW), "attn2/to_k")
    assert once == primal * (1 + 2)
    assert elements(linear_program(FEW, 3), "attn2/to_k") == primal * (1 + 6)


@pytest.mark.slow
def test_primal_pass_runs_once_for_all_directions():
    """Products before the first moved layer have no tangent: their number is that of a sweep."""
    primal = elements(sweep_program(FEW), "time_embedding/linear_1")
    assert elements(linear_program(FEW, 3), "time_embedding/linear_1") == primal
