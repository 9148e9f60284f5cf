"""The linearised pass in half precision: near float32, where a difference of losses is not."""

import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import devices, keys
from tda_jax.attribution import contract, fisher, linearised, prepare, sweep, unlearn
from tda_jax.evaluation.ranking import spearman
from tests.attribution import small

pytestmark = pytest.mark.slow  # compiles five programs of a UNet

USED = devices.local_devices(1)
DRAWS = keys.Draws(4, 10)


@pytest.fixture(scope="module")
def setting():
    """Model, corpus, group, and the direction of a query from its gradient and the corpus."""
    model, corpus = small.model(), small.corpus(23)
    moved, rest = contract.split_group(model, "transformer")
    made = fisher.make_fisher(model, 3, 0, 8, USED)
    placed = fisher.place(made, moved, rest)
    total = fisher.add(made, fisher.start(made, moved), placed, corpus.examples, corpus.ids)
    asked = unlearn.make_gradient(model, 64, 4, 0, 16, USED)
    one = prepare.one_query(corpus, SETTINGS)
    gradient = unlearn.query_gradient(
        asked, unlearn.place(asked, moved, rest), prepare.no_step(moved), one, corpus.ids[0]
    )
    information = fisher.information(total)
    return model, corpus, moved, rest, unlearn.preconditioned(gradient.blocks, information, 0.1, 50)


SETTINGS = prepare.Settings(50, "transformer")


def terms(setting, dtype):
    model, corpus, moved, rest, blocks = setting
    made = linearised.make_linearised(model, DRAWS, 0, 40, USED, dtype=dtype)
    placed = linearised.place(made, moved, rest)
    along = linearised.place_directions(made, [blocks])
    return linearised.expand(made, placed, along, corpus.examples, corpus.ids)


def test_terms_in_half_precision_rank_the_tracks_as_in_float32(setting):
    exact, half = terms(setting, "float32"), terms(setting, "bfloat16")
    assert half.a.dtype == half.b.dtype == np.float32  # sums are never in half precision
    for name in ("a", "b"):
        x, y = (getattr(e, name)[:, 0].mean((1, 2)) for e in (exact, half))
        assert spearman(x, y) >= 0.99
        assert not np.array_equal(x, y)  # the network did run in half precision


def test_a_difference_of_losses_in_half_precision_does_not(setting):
    """Why "exact" is float32: at the step where the terms above agree, differences are noise."""
    model, corpus, moved, rest, blocks = setting
    step = unlearn.mean_of_blocks(blocks)
    small_step = {path: leaf * np.float32(3e-6) for path, leaf in step.items()}

    def rise(dtype):
        made = sweep.make_sweep(model, DRAWS, 0, 40, USED)
        cast = [{p: jnp.asarray(x, dtype) for p, x in part.items()} for part in (moved, rest)]
        placed = sweep.place(made, *cast)
        steps = [prepare.no_step(moved), small_step]
        steps = [{p: jnp.asarray(x, dtype) for p, x in s.items()} for s in steps]
        before, after = (
            sweep.losses(
                made, placed, sweep.displaced(made, placed, s), corpus.examples, corpus.ids
            ).draws.mean((1, 2))
            for s in steps
        )
        return after - before

    first_order = terms(setting, "float32").a[:, 0].mean((1, 2))
    assert spearman(rise("float32"), first_order) > 0.95
    assert spearman(rise("bfloat16"), first_order) < 0.5
