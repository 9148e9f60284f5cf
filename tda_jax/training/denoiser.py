"""Training of a denoiser on latents.

Latents are trained on as they are, padding included, as AudioLDM is (Liu et al. 2023, arXiv
2301.12503). Timesteps are stratified over a batch.
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
) -> loop.Trained:
    """Trains on examples; see `loop.train`.

    Args:
        predict: (params, x_t, t, condition) -> prediction, for one example.
        schedule: the noise process.
        params: to start from; left as they are.
        examples: arrays with a leading axis of n. Their masks are not used.
        recipe: how to train.
        dropout: of the condition; None for none: the loss that is attributed has no guidance in it.
        checkpoints: where to keep what is done.
        callback: called with (updates done, averaged parameters) at `callback_steps`.
        callback_steps: numbers of updates, in 1 .. steps.

    Raises:
        InputError: a number is out of range, or the loss became nan or infinite.
    """
    if dropout is not None and not 0 <= dropout.rate <= 1:
        raise InputError(f"dropout = {dropout.rate}; give the share of dropped conditions, 0 to 1")
    data = (examples.latent, examples.condition)

    def rows(step: int, positions: np.ndarray) -> Any:
        del step
        return jax.tree.map(lambda x: x[positions], data)

    loss = _loss(per_example_loss(predict, schedule), len(schedule.alpha), dropout)
    n = examples.latent.shape[0]
    return loop.train(loss, params, rows, n, recipe, checkpoints, callback, callback_steps)


def _loss(loss_of: Callable[..., Array], timesteps: int, dropout: Dropout | None) -> loop.Loss:
    """(params, (latents, conditions), key) -> the mean loss of a batch."""

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
