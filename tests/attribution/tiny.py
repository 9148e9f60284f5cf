"""A small nonlinear model with a text condition, and the same losses by a plain NumPy loop."""

import jax
import jax.numpy as jnp
import numpy as np

from tda_jax import examples, keys
from tda_jax.attribution.contract import Model, Terms

FRAMES, WIDTH, CHANNELS = 6, 2, 3
TOKENS, TEXT, HIDDEN = 4, 5, 7
STEPS = 100
GROUPS = {"attention": "attention/.*", "output": "output/.*", "all": ".*"}

_ANGLE = (np.arange(STEPS) + 0.5) / STEPS * np.pi / 2
ALPHA, SIGMA = np.cos(_ANGLE), np.sin(_ANGLE)


def params(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(dtype)

    return {
        "input": {"kernel": normal(CHANNELS, HIDDEN), "time": normal(2, HIDDEN)},
        "attention": {
            "to_q": normal(HIDDEN, HIDDEN),
            "to_k": normal(TEXT, HIDDEN),
            "to_v": normal(TEXT, HIDDEN),
        },
        "output": {"kernel": normal(HIDDEN, CHANNELS), "bias": normal(CHANNELS)},
    }


def terms(params, example, t, noise):
    dtype = example.latent.dtype
    alpha, sigma = jnp.asarray(ALPHA, dtype)[t], jnp.asarray(SIGMA, dtype)[t]
    x = alpha * example.latent + sigma * noise
    time = jnp.stack([alpha, sigma]) @ params["input"]["time"]
    hidden = jnp.tanh(x @ params["input"]["kernel"] + time[None, None])
    query = hidden @ params["attention"]["to_q"]
    key = example.condition @ params["attention"]["to_k"]
    value = example.condition @ params["attention"]["to_v"]
    hidden = hidden + jax.nn.softmax(query @ key.T) @ value
    prediction = jnp.tanh(hidden) @ params["output"]["kernel"]
    prediction = prediction + params["output"]["bias"][None, None]
    return Terms(prediction, noise, example.mask)


def model(seed=0, dtype=np.float64):
    return Model(terms, params(seed, dtype), GROUPS, STEPS, f"tiny {seed} {np.dtype(dtype)}")


def corpus(n, seed=0, dtype=np.float64, prefix="track"):
    rng = np.random.default_rng([seed, 1])
    latents = rng.standard_normal((n, FRAMES, WIDTH, CHANNELS)).astype(dtype)
    text = rng.standard_normal((n, TOKENS, TEXT)).astype(dtype)
    masks = np.ones((n, FRAMES), np.float32)
    masks[::3, 4:] = 0
    return examples.corpus_of([f"{prefix} {i}" for i in range(n)], latents, text, masks)


def row(corpus, i):
    return jax.tree.map(lambda x: x[i], corpus.examples)


def draw(seed, domain, track_id, index, strata, dtype=np.float64):
    """Timestep and noise of one draw, outside any map."""
    root, words = keys.root(seed, domain), keys.track_words([track_id])[0]
    shape = (FRAMES, WIDTH, CHANNELS)
    t, noise = keys.timestep_and_noise(root, words, index, strata, STEPS, shape)
    return int(t), np.asarray(noise).astype(dtype)


def predict_plainly(params, latent, text, t, noise):
    """The network in NumPy, element by element over positions."""
    x = ALPHA[t] * latent + SIGMA[t] * noise
    time = np.array([ALPHA[t], SIGMA[t]]) @ params["input"]["time"]
    out = np.zeros_like(latent)
    for h in range(FRAMES):
        for w in range(WIDTH):
            hidden = np.tanh(x[h, w] @ params["input"]["kernel"] + time)
            scores = np.array(
                [
                    (hidden @ params["attention"]["to_q"]) @ (token @ params["attention"]["to_k"])
                    for token in text
                ]
            )
            share = np.exp(scores - scores.max())
            share = share / share.sum()
            for s, token in zip(share, text, strict=True):
                hidden = hidden + s * (token @ params["attention"]["to_v"])
            out[h, w] = np.tanh(hidden) @ params["output"]["kernel"] + params["output"]["bias"]
    return out


def loss_plainly(params, example, t, noise):
    prediction = predict_plainly(params, example.latent, example.condition, t, noise)
    total, count = 0.0, 0.0
    for h in range(FRAMES):
        for error in (prediction[h] - noise[h]).ravel():
            total += float(example.mask[h]) * error**2
            count += float(example.mask[h])
    return total / count
