"""A small trainer of a denoiser: enough for models of known corpora, without resuming.

Latents are trained on as they are, padding included, as AudioLDM is (Liu et al. 2023, arXiv
2301.12503). No condition is dropped: the loss that is attributed has no guidance in it.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from tda_jax.diffusion.losses import Predict, per_example_loss
from tda_jax.diffusion.schedules import NoiseSchedule
from tda_jax.errors import InputError
from tda_jax.examples import Example
from tda_jax.keys import Domain, root

_WARM_UP = 0.05  # share of the steps in which the learning rate rises
_EMA_DECAY = 0.99
_CLIP = 1.0  # global norm of a gradient


class Fitted(NamedTuple):
    """A trained model.

    Attributes:
        params: averaged (EMA) parameters, of the type that training started from.
        losses: (steps,) float32, the mean loss of each step's batch before its update.
    """

    params: Any
    losses: Float[np.ndarray, " steps"]


class _State(NamedTuple):
    params: Any
    optimiser: optax.OptState
    average: Any


def fit(
    predict: Predict,
    schedule: NoiseSchedule,
    params: Any,
    examples: Example,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    callback: Callable[[int, Any], None] | None = None,
    callback_steps: Collection[int] = (),
) -> Fitted:
    """Trains by Adam, with a linear warm-up and a cosine decay of the learning rate to 0.

    Tracks come in a new random order each epoch, each equally often. Timesteps are stratified
    over a batch. On one kind of device the result is a function of the arguments alone.

    Args:
        predict: (params, x_t, t, condition) -> prediction, for one example.
        schedule: the noise process.
        params: to start from; left as they are.
        examples: arrays with a leading axis of n. Their masks are not used.
        steps: updates.
        batch: examples in an update, 1 .. n.
        learning_rate: the highest one.
        seed: of order, timesteps and noise.
        callback: called with (updates done, averaged parameters) at `callback_steps`.
        callback_steps: numbers of updates, in 1 .. steps.

    Raises:
        InputError: a number is out of range, or the loss became nan or infinite.
    """
    n = examples.latent.shape[0]
    _refuse(n, steps, batch, learning_rate, callback_steps)
    optimiser = _optimiser(learning_rate, steps)
    update = _update(per_example_loss(predict, schedule), optimiser, len(schedule.alpha))
    state = jax.tree.map(
        jnp.array, _State(params, optimiser.init(params), params)
    )  # donated: copies
    data = jax.tree.map(jnp.asarray, (examples.latent, examples.condition))
    key = jax.random.wrap_key_data(jnp.asarray(root(seed, Domain.TRAINING)), impl="threefry2x32")
    losses = []
    for step, rows in zip(range(steps), _batches(key, n, batch), strict=False):
        state, loss = update(state, data, rows, jax.random.fold_in(key, step), jnp.int32(step))
        losses.append(loss)
        if callback is not None and step + 1 in callback_steps:
            _refuse_divergence(losses)
            callback(step + 1, jax.tree.map(jnp.array, state.average))
    _refuse_divergence(losses)
    return Fitted(state.average, np.asarray(jnp.stack(losses)))


def _optimiser(learning_rate: float, steps: int) -> optax.GradientTransformation:
    warm_up = max(1, round(_WARM_UP * steps))
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warm_up, max(steps, warm_up + 1))
    return optax.chain(optax.clip_by_global_norm(_CLIP), optax.adam(rate, b2=0.99))


def _update(
    loss_of: Callable[..., Array], optimiser: optax.GradientTransformation, timesteps: int
) -> Callable[..., tuple[_State, Array]]:
    """One jitted update: (state, data, rows, key, step) -> (state, mean loss)."""

    def mean_loss(params: Any, data: Any, t: Array, noise: Array) -> Array:
        latents, conditions = data
        over_batch = jax.vmap(loss_of, in_axes=(None, 0, 0, 0, 0))
        return jnp.mean(over_batch(params, latents, conditions, t, noise))

    def update(
        state: _State, data: Any, rows: Int[Array, " batch"], key: Array, step: Array
    ) -> tuple[_State, Array]:
        drawn = jax.tree.map(lambda x: x[rows], data)
        for_t, for_noise = jax.random.split(key)
        t = _timesteps(for_t, rows.shape[0], timesteps)
        noise = jax.random.normal(for_noise, drawn[0].shape, drawn[0].dtype)
        loss, gradient = jax.value_and_grad(mean_loss)(state.params, drawn, t, noise)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer's power
            change, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, change)
        return _State(params, optimiser_state, _average(state.average, params, step)), loss

    return jax.jit(update, donate_argnums=0)


def _average(average: Any, params: Any, step: Array) -> Any:
    """Exponential moving average; at first over fewer updates, so that the start is forgotten."""
    done = step.astype(jnp.float32) + 1
    decay = jnp.minimum(np.float32(_EMA_DECAY), done / (done + 9))
    return jax.tree.map(lambda a, p: a + (1 - decay).astype(a.dtype) * (p - a), average, params)


def _timesteps(key: Array, batch: int, timesteps: int) -> Int[Array, " batch"]:
    """One timestep from each of `batch` equal ranges of the schedule."""
    u = jax.random.uniform(key, (batch,), jnp.float32)
    t = (jnp.arange(batch, dtype=jnp.float32) + u) * np.float32(timesteps / batch)
    return jnp.minimum(t.astype(jnp.int32), timesteps - 1)


def _batches(key: Array, n: int, batch: int) -> Iterator[Int[np.ndarray, " batch"]]:
    """Rows of each batch without end: one permutation of the tracks after another."""
    order, epoch = np.empty(0, np.int32), 0
    while True:
        while len(order) < batch:
            shuffle = jax.random.fold_in(jax.random.fold_in(key, 2**32 - 1), epoch)
            order = np.concatenate(
                [order, np.asarray(jax.random.permutation(shuffle, n), np.int32)]
            )
            epoch += 1
        yield order[:batch]
        order = order[batch:]


def _refuse(
    n: int, steps: int, batch: int, learning_rate: float, callback_steps: Collection[int]
) -> None:
    if steps < 1:
        raise InputError(f"steps = {steps}; give at least 1")
    if not 1 <= batch <= n:
        raise InputError(f"batch = {batch} of {n} examples; give 1 to {n}")
    if not 0 < learning_rate < np.inf:
        raise InputError(f"learning_rate = {learning_rate}; give a finite number above 0")
    outside = sorted(s for s in callback_steps if not 1 <= s <= steps)
    if outside:
        raise InputError(f"callback_steps {outside} are outside 1 .. {steps}")


def _refuse_divergence(losses: list[Array]) -> None:
    bad = np.flatnonzero(~np.isfinite(np.asarray(jnp.stack(losses))))
    if len(bad):
        raise InputError(
            f"the loss became nan or infinite at update {bad[0] + 1}; lower the learning rate"
        )
