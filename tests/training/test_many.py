"""Models trained side by side are those that are trained alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax import devices
from tda_jax.errors import InputError
from tda_jax.evaluation.synthetic import synthetic_corpus
from tda_jax.keys import Domain, root
from tda_jax.training import loop, many
from tda_jax.training.denoiser import batch_loss
from tda_jax.training.loop import Recipe
from tda_jax.training.many import Job
from tests.evaluation import few_parameters

RECIPE = Recipe(6, 3, 1e-2, 0)
AT = (2, 6)
JOBS = [Job(np.array([0, 1, 2, 3, 4, 5]), 0), Job(np.array([1, 4, 5]), 0), Job(np.arange(6), 1)]


@pytest.fixture(scope="module")
def data():
    corpus = synthetic_corpus(0, 3, 2, 2, 0, 0)
    return corpus.examples.latent, corpus.examples.condition


def trainer(data, recipe=RECIPE, at=AT, per_device=1, count=1):
    network = few_parameters.network()
    loss = batch_loss(network.predict, network.schedule)
    used = devices.local_devices(count)
    return many.make_trainer(loss, network.params, data, recipe, at, used, per_device)


def assert_alike(first, second, **close):
    for updates in AT:
        pairs = zip(jax.tree.leaves(first[updates]), jax.tree.leaves(second[updates]), strict=True)
        for x, y in pairs:
            np.testing.assert_allclose(x, y, **close)


def test_a_model_is_that_of_a_plain_loop(data):
    network = few_parameters.network()
    optimiser = loop.optimiser_of(RECIPE)
    update = loop.update_of(batch_loss(network.predict, network.schedule), optimiser)
    found = many.train(trainer(data), [JOBS[1]])[0]
    state = loop.start_of(network.params, optimiser, RECIPE.steps)
    key = jax.random.wrap_key_data(root(0, Domain.TRAINING), impl="threefry2x32")
    rows = many.order(6, RECIPE, JOBS[1])
    wanted = {}
    for step in range(RECIPE.steps):
        batch = jax.tree.map(lambda x, r=rows[step]: x[r], data)
        state = update(state, batch, jax.random.fold_in(key, step), jnp.int32(step))
        wanted[step + 1] = state.average
    assert_alike(found, wanted, rtol=2e-5, atol=2e-6)


def test_neighbours_change_nothing(data):
    alone = [many.train(trainer(data), [job])[0] for job in JOBS]
    together = many.train(trainer(data, per_device=3), JOBS)
    for one, other in zip(alone, together, strict=True):
        assert_alike(one, other, rtol=1e-5, atol=1e-6)
    beside = many.train(trainer(data, per_device=3), JOBS[1:])
    assert_alike(beside[0], together[1], rtol=0, atol=0)  # another place, the same program
    assert not np.allclose(*(jax.tree.leaves(x[6])[0] for x in together[:2]), rtol=1e-3)
    assert not np.allclose(*(jax.tree.leaves(together[i][6])[0] for i in (0, 2)), rtol=1e-3)


def test_progress_is_told_and_the_start_is_left(data):
    made, told = trainer(data, Recipe(60, 3, 1e-2, 0), (60,)), []
    before = jax.tree.map(np.array, made.start.params)
    many.train(made, JOBS[:1], told.append)
    assert told == [50]
    jax.tree.map(np.testing.assert_array_equal, before, made.start.params)


@settings(deadline=None, max_examples=50)
@given(st.sets(st.integers(0, 9), min_size=1), st.integers(0, 3), st.integers(1, 10))
def test_an_order_is_the_stream_without_what_is_removed(kept, seed, batch):
    recipe = Recipe(7, batch, 1e-3, 0)
    rows = np.array(sorted(kept))
    order = many.order(10, recipe, Job(rows, seed)).ravel()
    assert set(order.tolist()) <= kept
    whole = Recipe(-(-7 * batch // len(kept)), 10, 1e-3, 0)  # as many epochs of all
    stream = many.order(10, whole, Job(np.arange(10), seed)).ravel()
    np.testing.assert_array_equal(order, stream[np.isin(stream, rows)][: len(order)])
    counts = np.bincount(order, minlength=10)[rows]
    assert np.ptp(counts) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": (2, 5)}, "the last 6"),
        ({"at": (6, 2)}, "rising"),
        ({"at": ()}, "rising"),
        ({"recipe": Recipe(6, 7, 1e-2, 0)}, "batch = 7"),
    ],
)
def test_what_cannot_be_trained_is_refused(data, change, message):
    with pytest.raises(InputError, match=message):
        trainer(data, **change)


def test_jobs_that_cannot_be_done_are_refused(data):
    made = trainer(data)
    with pytest.raises(InputError, match="3 models at a time"):
        many.train(made, JOBS)
    for rows in ([], [6], [-1]):
        with pytest.raises(InputError, match="keep some"):
            many.train(made, [Job(np.array(rows, int), 0)])


def test_divergence_is_named(data):
    with pytest.raises(InputError, match=r"6 examples and seed 0 became nan.*learning rate"):
        many.train(trainer(data, Recipe(6, 3, 1e30, 0)), JOBS[:1])
