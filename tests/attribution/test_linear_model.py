"""A linear model whose scores are known in closed form: sign, size and order.

prediction = θ · φ for a track with features φ, the same at every element; the target is the latent.
With r = θ · φ - mean(latent): loss gradient 2 r φ, F = mean (2 r φ)², and along a direction u
τ(lr) = lr · 2 r (φ · u) + lr² (φ · u)², exactly.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import devices, examples, keys
from tda_jax.attribution import contract, fisher, linearised, sweep, unlearn

USED = devices.local_devices(1)
DRAWS = keys.Draws(2, 10)
N, DAMPING = 8, 0.5

# Features: the query shares its first with `same` and `against`, nothing with `apart`.
IDS = ["against", "apart", "half", "query", "same"]
FEATURES = np.array([[-1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [1, 0, 1], [1, 0, 0]], np.float32)
THETA = np.array([0.5, 0.2, -0.1], np.float32)
MEANS = np.array([-1.0, 0.7, -0.2, -1.5, -0.5], np.float32)


def terms(params, example, t, noise):
    value = params["layer"]["theta"] @ example.condition
    prediction = jnp.full(example.latent.shape, 1.0, jnp.float32) * value
    return contract.Terms(prediction, example.latent, example.mask)


MODEL = contract.Model(terms, {"layer": {"theta": THETA}}, {"all": ".*"}, 100, "linear")


def corpus():
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((5, 4, 2, 2)).astype(np.float32)
    latents += (MEANS - latents.mean((1, 2, 3)))[:, None, None, None]
    return examples.corpus_of(IDS, latents, FEATURES)


def closed_form():
    """Direction of the query, and a and b of each track, by hand in float64."""
    phi, residual = FEATURES.astype(float), FEATURES @ THETA.astype(float) - MEANS
    gradients = 2 * residual[:, None] * phi
    information = (gradients**2).mean(0)
    query = IDS.index("query")
    u = gradients[query] / (information + DAMPING * information.mean()) / N
    return u, 2 * residual * (phi @ u), (phi @ u) ** 2


def direction():
    moved, rest = contract.split_group(MODEL, "all")
    data = corpus()
    made = fisher.make_fisher(MODEL, 2, 0, 4, USED)
    placed = fisher.place(made, moved, rest)
    total = fisher.add(made, fisher.start(made, moved), placed, data.examples, data.ids)
    asked = unlearn.make_gradient(MODEL, 8, 4, 0, 4, USED)
    query = examples.take(data, [IDS.index("query")])
    gradient = unlearn.query_gradient(
        asked,
        unlearn.place(asked, moved, rest),
        {p: np.zeros_like(x) for p, x in moved.items()},
        examples.Example(*(x[0] for x in query.examples)),
        "query",
    )
    return unlearn.preconditioned(gradient.blocks, fisher.information(total), DAMPING, N)


def test_direction_is_the_natural_gradient():
    u, _, _ = closed_form()
    np.testing.assert_allclose(direction()["layer/theta"].mean(0), u, rtol=1e-5, atol=1e-9)


def test_linearised_terms_have_their_closed_form():
    _, a, b = closed_form()
    moved, rest = contract.split_group(MODEL, "all")
    made = linearised.make_linearised(MODEL, DRAWS, 0, 20, USED, curved=True)
    placed, along = (
        linearised.place(made, moved, rest),
        linearised.place_directions(made, [direction()]),
    )
    data = corpus()
    got = linearised.expand(made, placed, along, data.examples, data.ids)
    np.testing.assert_allclose(got.a[:, 0].mean((1, 2)), a, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(got.b[:, 0].mean((1, 2)), b, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(got.b_step[:, 0].mean((1, 2)), b, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(got.curved, 0, atol=1e-8)  # a linear model has no curvature


@pytest.mark.parametrize("rate", [0.5, 3.0, -1.0])
def test_exact_scores_have_their_closed_form(rate):
    u, a, b = closed_form()
    moved, rest = contract.split_group(MODEL, "all")
    made = sweep.make_sweep(MODEL, DRAWS, 0, 20, USED)
    placed, data = sweep.place(made, moved, rest), corpus()

    def losses(step):
        step = sweep.displaced(made, placed, {"layer/theta": np.asarray(step, np.float32)})
        return sweep.losses(made, placed, step, data.examples, data.ids).draws.mean((1, 2))

    tau = losses(rate * u) - losses(0 * u)
    np.testing.assert_allclose(tau, rate * a + rate**2 * b, rtol=1e-4, atol=1e-6)


def test_sign_and_order():
    """Who shares the query's feature and errs the same way supports it; who errs against, not."""
    _, a, b = closed_form()
    tau = dict(zip(IDS, 0.1 * a + 0.01 * b, strict=True))
    assert tau["query"] > tau["same"] > tau["half"] > 0
    assert tau["apart"] == 0
    assert tau["against"] < 0


def test_rate_for_rise_gives_that_rise():
    _, a, b = closed_form()
    query = IDS.index("query")
    for rise in (0.01, 0.3, 2.0):
        rate = unlearn.rate_for_rise(a[query], b[query], 4.0, rise)
        assert rate > 0
        assert rate * a[query] + rate**2 * b[query] == pytest.approx(rise * 4.0)
    assert unlearn.rate_for_rise(2.0, 0.0, 4.0, 0.5) == pytest.approx(1.0)
    assert unlearn.rate_for_rise(-1.0, 1.0, 2.0, 1.0) == pytest.approx(2.0)


@pytest.mark.parametrize(("a", "b"), [(-1.0, 0.0), (0.0, -1.0), (-1.0, -1.0), (1.0, -1.0)])
def test_a_rise_that_cannot_be_reached_is_refused(a, b):
    with pytest.raises(ValueError, match="no learning rate"):
        unlearn.rate_for_rise(a, b, 1.0, 1.0)
