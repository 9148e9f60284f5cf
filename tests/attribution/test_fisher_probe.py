"""The Gauss-Newton diagonal from random probes of the output, against explicit Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import devices, keys
from tda_jax import params as tree
from tda_jax.attribution import fisher
from tda_jax.attribution.contract import split_group, weights_of
from tda_jax.attribution.rows import Row, terms_of_draw
from tests.attribution import tiny

DRAWS, SEED = 4, 3


@pytest.fixture(scope="module")
def given():
    model, corpus = tiny.model(0, np.float32), tiny.corpus(3, 0, np.float32)
    return model, corpus, split_group(model, "output")


def information(given, kind, draws=DRAWS, batch=4, seed=SEED):
    model, corpus, (moved, rest) = given
    made = fisher.make_fisher(model, draws, seed, batch, devices.local_devices(1), kind)
    total = fisher.add(
        made,
        fisher.start(made, moved),
        fisher.place(made, moved, rest),
        corpus.examples,
        corpus.ids,
    )
    return fisher.information(total)


def jacobian(given, i, draw, draws=DRAWS):
    """The output's Jacobian and its weights, of one draw of one track."""
    model, corpus, (moved, rest) = given
    one = jax.tree.map(lambda x: jnp.asarray(x[i]), corpus.examples)
    row = Row(one, keys.track_words(corpus.ids)[i], np.arange(draws))
    root = keys.root(SEED, keys.Domain.FISHER)

    def terms(m):
        return terms_of_draw(model, draws, tree.merge(m, rest), root, row, jnp.int32(draw))

    return jax.jacrev(lambda m: terms(m).prediction)(moved), terms(moved)


def test_each_probe_is_squared_on_its_own(given):
    _, corpus, (moved, _) = given
    wanted = {path: np.zeros(x.shape) for path, x in moved.items()}
    probe = keys.root(SEED, keys.Domain.PROBE)
    for i, words in enumerate(keys.track_words(corpus.ids)):
        for draw in range(DRAWS):
            rows, terms = jacobian(given, i, draw)
            shape = terms.prediction.shape
            key = keys.draw_key(probe, words, draw)
            sign = np.asarray(jax.random.rademacher(key, shape, jnp.float32))
            v = sign * np.sqrt(2 * np.asarray(weights_of(terms, jnp.float32)))
            for path, j in rows.items():
                g = np.tensordot(v, np.asarray(j, np.float64), v.ndim)
                wanted[path] += g**2 / (len(corpus.ids) * DRAWS)
    found = information(given, "probe")
    for path, x in wanted.items():
        np.testing.assert_allclose(found[path], x, rtol=2e-4, atol=1e-9)


def test_many_probes_give_the_gauss_newton_diagonal(given):
    draws = 400
    found = information(given, "probe", draws, 100)
    _, corpus, (moved, _) = given
    exact = {path: np.zeros(x.shape) for path, x in moved.items()}
    of_draw = jax.jit(lambda i, d: jacobian(given, i, d, draws), static_argnums=0)
    few = range(0, draws, 10)
    for i in range(len(corpus.ids)):
        for draw in few:
            rows, terms = of_draw(i, jnp.int32(draw))
            weight = 2 * np.asarray(weights_of(terms, jnp.float32))
            for path, j in rows.items():
                squares = np.tensordot(weight, np.asarray(j) ** 2, weight.ndim)
                exact[path] += squares / (len(corpus.ids) * len(few))
    ratio = np.concatenate([(found[p] / exact[p]).ravel() for p in exact])
    assert abs(ratio.mean() - 1) < 0.1
    assert np.abs(ratio - 1).max() < 0.6


def test_it_does_not_depend_on_the_batch_and_is_not_the_residuals(given):
    first, second = (information(given, "probe", batch=b) for b in (1, 4))
    residual = information(given, "residual")
    for path, x in first.items():
        np.testing.assert_allclose(x, second[path], rtol=1e-5)
        assert not np.allclose(x, residual[path], rtol=0.2)
    assert not np.allclose(first["output/bias"], information(given, "probe", seed=4)["output/bias"])
