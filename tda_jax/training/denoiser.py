"""Training of a denoiser on latents.

Latents are trained on as they are, padding included, as AudioLDM is (Liu et al. 2023, arXiv
2301.12503). Timesteps are stratified over a batch. Tracks are trained on equally often, however
many windows and captions they have.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from tda_jax.diffusion.losses import Predict, per_example_loss
from tda_jax.diffusion.schedules import NoiseSchedule
from tda_jax.errors import InputError
from tda_jax.examples import Example
from tda_jax.named_draws import generator
from tda_jax.training import loop
from tda_jax.training.checkpoints import Checkpoints


class Dropout(NamedTuple):
    """Which condition stands for none, and how often: what guidance needs (arXiv 2207.12598).

    Attributes:
        condition: of one example, that of an empty caption.
        rate: the share of examples that get it, 0 to 1.
    """

    condition: Any
    rate: float


def fit(
    predict: Predict,
    schedule: NoiseSchedule,
    params: Any,
    examples: Example,
    recipe: loop.Recipe,
    dropout: Dropout | None = None,
    checkpoints: Checkpoints | None = None,
    callback: Callable[[int, Any], None] | None = None,
    callback_steps: Collection[int] = (),
    tracks: Int[np.ndarray, " n"] | None = None,
) -> loop.Trained:
    """Trains on examples; see `loop.train`. An epoch has every track once.

    Args:
        predict: (params, x_t, t, condition) -> prediction, for one example.
        schedule: the noise process.
        params: to start from; left as they are.
        examples: arrays with a leading axis of n. Their masks are not used.
        recipe: how to train; its batch is of tracks, at most as many as there are.
        dropout: of the condition; None for none: the loss that is attributed has no guidance in it.
        checkpoints: where to keep what is done.
        callback: called with (updates done, averaged parameters) at `callback_steps`.
        callback_steps: numbers of updates, in 1 .. steps.
        tracks: which track each example is a unit of, by any numbers; None where each is a track
            of its own. Each time that a track is trained on, one of its units is drawn, each
            equally likely, by a generator of (seed, step).

    Raises:
        InputError: a number is out of range, the tracks are not n, or the loss became nan or
            infinite.
    """
    if dropout is not None and not 0 <= dropout.rate <= 1:
        raise InputError(f"dropout = {dropout.rate}; give the share of dropped conditions, 0 to 1")
    data, given = (examples.latent, examples.condition), examples.latent.shape[0]
    tracks = np.arange(given) if tracks is None else tracks
    if tracks.shape != (given,):
        raise InputError(f"tracks of the shape {tracks.shape} for {given} examples; give one each")
    n, unit = _units(tracks, recipe.seed)

    def rows(step: int, positions: np.ndarray) -> Any:
        drawn = unit(step, positions)
        return jax.tree.map(lambda x: x[drawn], data)

    loss = batch_loss(predict, schedule, dropout)
    return loop.train(loss, params, rows, n, recipe, checkpoints, callback, callback_steps)


def _units(
    tracks: Int[np.ndarray, " n"], seed: int
) -> tuple[int, Callable[[int, Int[np.ndarray, " b"]], Int[np.ndarray, " b"]]]:
    """How many tracks there are, and (step, positions of tracks) -> a unit of each, at random.

    Tracks are in the order of their first units, so that tracks of one unit are these units.
    """
    _, first, track, count = np.unique(
        tracks, return_index=True, return_inverse=True, return_counts=True
    )
    by_track = np.argsort(first[track], kind="stable")  # units, those of a track together
    count = count[np.argsort(first)]
    start = np.cumsum(count) - count

    def unit(step: int, positions: np.ndarray) -> np.ndarray:
        u = generator(seed, f"units of step {step}").random(len(positions))
        return by_track[start[positions] + np.floor(u * count[positions]).astype(np.int64)]

    return len(count), unit


def batch_loss(
    predict: Predict, schedule: NoiseSchedule, dropout: Dropout | None = None
) -> loop.Loss:
    """(params, (latents, conditions), key) -> the mean loss of a batch.

    Args:
        predict: (params, x_t, t, condition) -> prediction, for one example.
        schedule: the noise process.
        dropout: of the condition; None for none.
    """
    loss_of, timesteps = per_example_loss(predict, schedule), len(schedule.alpha)

    def loss(params: Any, data: Any, key: Array) -> Array:
        latents, conditions = data
        for_t, for_noise = jax.random.split(key)
        t = _timesteps(for_t, latents.shape[0], timesteps)
        noise = jax.random.normal(for_noise, latents.shape, latents.dtype)
        if dropout is not None:
            conditions = _dropped(jax.random.fold_in(key, 2), conditions, dropout)
        over_batch = jax.vmap(loss_of, in_axes=(None, 0, 0, 0, 0))
        return jnp.mean(over_batch(params, latents, conditions, t, noise))

    return loss


def _dropped(key: Array, conditions: Any, dropout: Dropout) -> Any:
    """The conditions of a batch, each replaced by that of an empty caption at random."""
    batch = jax.tree.leaves(conditions)[0].shape[0]
    drop = jax.random.bernoulli(key, dropout.rate, (batch,))

    def chosen(x: Array, empty: Array) -> Array:
        return jnp.where(drop.reshape(batch, *[1] * (x.ndim - 1)), empty[None], x)

    return jax.tree.map(chosen, conditions, jax.tree.map(jnp.asarray, dropout.condition))


def _timesteps(key: Array, batch: int, timesteps: int) -> Int[Array, " batch"]:
    """One timestep from each of `batch` equal ranges of the schedule."""
    u = jax.random.uniform(key, (batch,), jnp.float32)
    t = (jnp.arange(batch, dtype=jnp.float32) + u) * np.float32(timesteps / batch)
    return jnp.minimum(t.astype(jnp.int32), timesteps - 1)
