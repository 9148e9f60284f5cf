"""A linear model whose gradients are known in closed form.

prediction = θ · φ for a track with features φ, the same at every element; the target is the mean of
the latent at every element, so that no draw differs. With r = θ · φ - mean: the loss is r², its
gradient 2 r φ, and that of the mean square of the prediction 2 (θ · φ) φ.
"""

import jax.numpy as jnp
import numpy as np

from tda_jax import devices, examples
from tda_jax.attribution.contract import Model, Terms
from tda_jax.baselines.contract import Task

USED = devices.local_devices(1)
SEED, N, FEATURES = 3, 8, 5
GROUPS = {"transformer": "b/.*", "all": ".*"}


def terms(params, example, t, noise):
    theta = jnp.concatenate([params["a"]["theta"], params["b"]["theta"]])
    value = theta @ example.condition
    ones = jnp.ones(example.latent.shape, jnp.float32)
    return Terms(ones * value, ones * example.latent.mean(), example.mask)


def model(theta=(0.5, 0.2, -0.1, 0.7, 0.3)):
    theta = np.array(theta, np.float32)
    params = {"b": {"theta": theta[2:]}, "a": {"theta": theta[:2]}}  # paths not in their order
    return Model(terms, params, GROUPS, 100, "linear")


def corpus(n=N, seed=0, prefix="track", members=None):
    rng = np.random.default_rng([seed, 4])
    latents = rng.standard_normal((n, 4, 2, 2)).astype(np.float32)
    features = rng.standard_normal((n, FEATURES)).astype(np.float32)
    ids = [f"{prefix} {i}" for i in range(n)]
    return examples.corpus_of(ids, latents, features, members=members)


def task(given, batch=4, of=None):
    return Task(model() if of is None else of, given, 100, SEED, USED, batch)


def gradients(given, of="loss"):
    """By hand, in float64."""
    phi = given.examples.condition.astype(float)
    theta = np.concatenate([model().params[k]["theta"] for k in "ab"]).astype(float)
    means = given.examples.latent.astype(float).mean((1, 2, 3)) if of == "loss" else 0.0
    return 2 * (phi @ theta - means)[:, None] * phi
