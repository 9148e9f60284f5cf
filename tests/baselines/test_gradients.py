import jax
import numpy as np
import pytest

from tda_jax import examples, keys
from tda_jax import params as tree
from tda_jax.attribution.contract import loss_of
from tda_jax.baselines import gradients
from tda_jax.baselines.gradients import (
    COORDINATES,
    Projection,
    make_gradients,
    mean_gradients,
    products,
    project,
    refuse_zeros,
    signs,
    spans_of,
    squares,
)
from tda_jax.errors import InputError
from tests.baselines import linear, methods

DRAWS = keys.Draws(2, 3)


def plainly(task, pattern, of, corpus, domain):
    """One gradient after another, by JAX's own derivative, summed in float64."""
    moved, rest = tree.split(task.model.params, pattern)
    root = keys.root(task.seed, domain)

    @jax.jit
    @jax.grad
    def gradient(moved, example, t, noise):
        terms = task.model.terms(tree.merge(moved, rest), example, t, noise)
        if of == "output":
            weight = np.ones(terms.prediction.shape, np.float32) * example.mask[:, None, None]
            return (weight * terms.prediction**2).sum() / weight.sum()
        return loss_of(terms)

    found = []
    for i, name in enumerate(corpus.ids):
        example, total = jax.tree.map(lambda x, i=i: x[i], corpus.examples), 0.0
        for draw in range(DRAWS.count):
            t, noise = keys.timestep_and_noise(
                root, keys.track_words([name])[0], draw, DRAWS.strata, 100, example.latent.shape
            )
            one = gradient(moved, example, t, noise)
            total += np.concatenate([np.asarray(one[p], float).ravel() for p in sorted(one)])
        found.append(total / DRAWS.count)
    return np.stack(found)


@pytest.mark.parametrize("of", ["loss", "output"])
@pytest.mark.parametrize("pattern", [".*", "attention/to_[kv]"])
def test_rows_are_means_over_draws_of_plain_gradients(of, pattern):
    task = methods.task(batch=2)
    made = make_gradients(task, pattern, DRAWS, keys.Domain.SWEEP, of)
    found = mean_gradients(made, task.corpus.examples, task.corpus.ids)
    wanted = plainly(task, pattern, of, task.corpus, keys.Domain.SWEEP)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("of", ["loss", "output"])
def test_a_linear_model_has_its_closed_form_in_the_order_of_paths(of):
    corpus = linear.corpus()
    made = make_gradients(linear.task(corpus), ".*", DRAWS, keys.Domain.QUERY, of)
    assert made.spans == {"a/theta": slice(0, 2), "b/theta": slice(2, 5)}
    found = mean_gradients(made, corpus.examples, corpus.ids)
    np.testing.assert_allclose(found, linear.gradients(corpus, of), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("projection", [None, Projection(7, 0)])
def test_tracks_come_some_at_a_time(monkeypatch, projection):
    corpus = linear.corpus()
    made = make_gradients(
        linear.task(corpus, 2), ".*", DRAWS, keys.Domain.SWEEP, projection=projection
    )
    whole = mean_gradients(made, corpus.examples, corpus.ids)
    monkeypatch.setattr(gradients, "_HELD", 5 * 3 * 3)  # 3 tracks of 3 blocks of draws
    parts = mean_gradients(made, corpus.examples, corpus.ids)
    np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-6)


def all_signs(width, dimension, seed):
    root = keys.root(seed, keys.Domain.PROJECTION)
    blocks = range(-(-width // COORDINATES))
    return np.concatenate([signs(root, np.uint32(b), dimension) for b in blocks])[:width]


@pytest.mark.parametrize(("n", "dimension"), [(1, 5), (3, 64)])
def test_a_projection_is_a_product_with_its_signs(n, dimension):
    width = 2 * COORDINATES + 17
    rows = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    matrix = all_signs(width, dimension, 9).astype(float)
    wanted = rows.astype(float) @ matrix / np.sqrt(dimension)
    found = project(Projection(dimension, 9), rows)
    np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max(), rtol=0)


def test_signs_are_fair_independent_and_those_of_seed_and_block():
    matrix = all_signs(2 * COORDINATES, 70, 9)
    assert set(np.unique(matrix)) == {-1.0, 1.0}
    n = matrix.size
    assert abs(matrix.mean()) < 4 / np.sqrt(n)
    columns = matrix.T @ matrix / len(matrix) - np.eye(70)
    assert abs(columns).max() < 5 / np.sqrt(len(matrix))
    first, second = matrix[:COORDINATES], matrix[COORDINATES:]
    assert abs((first * second).mean()) < 4 / np.sqrt(n / 2)
    assert (all_signs(10, 70, 9) == matrix[:10]).all()
    assert (all_signs(2 * COORDINATES, 70, 10) != matrix).mean() == pytest.approx(0.5, abs=0.01)


def test_a_projection_keeps_inner_products():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(6, 3000)) + 1.5 * rng.normal(size=3000)
    dimension = 1024
    short = project(Projection(dimension, 2), rows.astype(np.float32)).astype(float)
    wanted, norms = rows @ rows.T, np.square(rows).sum(1)
    spread = np.sqrt((np.outer(norms, norms) + wanted**2) / dimension)  # of each product, at most
    off = (short @ short.T - wanted) / spread
    assert abs(off).max() < 4
    assert off.std() > 0.2  # the bound is no looser than it says


def test_columns_of_a_pattern_and_products_over_them(monkeypatch):
    task = methods.task()
    made = make_gradients(task, ".*", DRAWS, keys.Domain.SWEEP)
    spans = spans_of(made, task.model.params, "attention/to_[kq]|output/bias")
    chosen = np.concatenate([np.r_[s] for s in spans])
    wanted = [made.spans[p] for p in ("attention/to_k", "attention/to_q", "output/bias")]
    assert chosen.tolist() == np.concatenate([np.r_[s] for s in wanted]).tolist()
    assert len(spans) == 2  # to_k and to_q are neighbours
    x, y = (np.random.default_rng(i).normal(size=(4, 210)).astype(np.float32) for i in (0, 1))
    monkeypatch.setattr(gradients, "COORDINATES", 16)
    dots = [[sum(float(a[c]) * float(b[c]) for c in chosen) for b in y] for a in x]
    np.testing.assert_allclose(products(x, y, spans), dots, rtol=1e-12)
    own = [sum(float(a[c]) ** 2 for c in chosen) for a in x]
    np.testing.assert_allclose(squares(x, spans), own, rtol=1e-12)


def test_what_cannot_be_computed_is_refused():
    corpus = linear.corpus()
    task = linear.task(corpus)

    def make(*args, **more):
        return make_gradients(task, *args, keys.Domain.SWEEP, **more)

    with pytest.raises(InputError, match=r"the pattern 'c/\.\*' selects none"):
        make("c/.*", DRAWS)
    with pytest.raises(InputError, match="replicates=0"):
        make(".*", keys.Draws(0, 10))
    with pytest.raises(InputError, match="a projection to 0 numbers"):
        make(".*", DRAWS, projection=Projection(0, 0))
    with pytest.raises(InputError, match=r"widen its pattern"):
        spans_of(make("a/.*", DRAWS), task.model.params, ".*")
    with pytest.raises(InputError, match="are zero for all 3 tracks"):
        refuse_zeros(np.zeros((3, 2)), "the members")
    huge = corpus.examples._replace(latent=corpus.examples.latent * np.float32(1e38))
    with pytest.raises(InputError, match=r"'track 0', .* are not finite"):
        mean_gradients(make(".*", DRAWS), huge._replace(condition=huge.condition * 10), corpus.ids)
    with pytest.raises(InputError, match="a projection that is not finite"):
        project(Projection(4, 0), np.full((1, 100), 3e38, np.float32))
    some = examples.take(corpus, [1])
    assert mean_gradients(make(".*", DRAWS), some.examples, some.ids).shape == (1, 5)
