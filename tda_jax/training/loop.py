"""Training by Adam with averaged parameters, resumable: one loop for every model of the project.

On one kind of device the result is a function of loss, data and recipe alone: which rows a step
takes and what it draws depend on (seed, step) and on nothing that a kill could lose.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from tda_jax.errors import InputError
from tda_jax.keys import Domain, root
from tda_jax.training.checkpoints import Checkpoints, opened

_WARM_UP = 0.05  # share of the steps in which the learning rate rises
_EMA_DECAY = 0.99
_CLIP = 1.0  # global norm of a gradient

Loss = Callable[[Any, Any, Array], Array]
"""loss(params, rows, key) -> the mean loss of a batch, a pure function."""

Rows = Callable[[int, Int[np.ndarray, " batch"]], Any]
"""rows(step, positions) -> a tree of arrays, the batch of a step."""


class Recipe(NamedTuple):
    """How to train.

    Attributes:
        steps: updates.
        batch: examples in an update, 1 .. n.
        learning_rate: the highest one: it rises linearly over the first 5 % of the steps, then
            falls to 0 along a cosine.
        seed: of order and draws.
    """

    steps: int
    batch: int
    learning_rate: float
    seed: int


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        params: averaged (EMA) parameters, of the type that training started from.
        losses: (steps,) float32, the mean loss of each step's batch before its update.
    """

    params: Any
    losses: Float[np.ndarray, " steps"]


class State(NamedTuple):
    """Where a training stands; `losses` (steps,) are filled as it goes."""

    params: Any
    optimiser: optax.OptState
    average: Any
    losses: Float[Array, " steps"]


def train(
    loss: Loss,
    params: Any,
    rows: Rows,
    n: int,
    recipe: Recipe,
    checkpoints: Checkpoints | None = None,
    callback: Callable[[int, Any], None] | None = None,
    callback_steps: Collection[int] = (),
) -> Trained:
    """Trains a model; with checkpoints, goes on from the last one.

    Rows come in a new random order each epoch, each equally often.

    Args:
        loss: of a batch.
        params: to start from; left as they are.
        rows: gives the batch of a step.
        n: how many examples there are.
        recipe: how to train.
        checkpoints: where to keep what is done; None to keep nothing.
        callback: called with (updates done, averaged parameters) at `callback_steps`, except for
            those that were done before.
        callback_steps: numbers of updates, in 1 .. steps.

    Raises:
        InputError: a number is out of range, the loss became nan or infinite, or the checkpoints
            are of something else.
    """
    refuse_recipe(n, recipe)
    _refuse_steps(recipe, callback_steps)
    optimiser = optimiser_of(recipe)
    start = start_of(params, optimiser, recipe.steps)
    state = jax.tree.map(jnp.array, start)  # copies: a step uses its state up
    key = jax.random.wrap_key_data(
        jnp.asarray(root(recipe.seed, Domain.TRAINING)), impl="threefry2x32"
    )
    order = _order(key, n, recipe.batch)
    update = jax.jit(update_of(loss, optimiser), donate_argnums=0)
    with opened(checkpoints) as kept:
        done, state = kept.last(state)
        for step in range(done, recipe.steps):
            batch, for_step = rows(step, order(step)), jax.random.fold_in(key, step)
            state = update(state, batch, for_step, jnp.int32(step))
            due = step + 1 in callback_steps
            if due or kept.due(step + 1, recipe.steps):
                _refuse_divergence(state.losses, step + 1)
                kept.save(step + 1, recipe.steps, state)
            if due and callback is not None:
                callback(step + 1, jax.tree.map(jnp.array, state.average))
    _refuse_divergence(state.losses, recipe.steps)
    return Trained(state.average, np.asarray(state.losses))


def optimiser_of(recipe: Recipe) -> optax.GradientTransformation:
    """Adam after clipping, with the recipe's learning rate."""
    steps = recipe.steps
    warm_up = max(1, round(_WARM_UP * steps))
    rate = optax.warmup_cosine_decay_schedule(
        0.0, recipe.learning_rate, warm_up, max(steps, warm_up + 1)
    )
    return optax.chain(optax.clip_by_global_norm(_CLIP), optax.adam(rate, b2=0.99))


def start_of(params: Any, optimiser: optax.GradientTransformation, steps: int) -> State:
    """Before the first of so many updates."""
    return State(params, optimiser.init(params), params, jnp.zeros(steps, jnp.float32))


def update_of(loss: Loss, optimiser: optax.GradientTransformation) -> Callable[..., State]:
    """One update, a pure function: (state, batch, key, step) -> state."""

    def update(state: State, batch: Any, key: Array, step: Array) -> State:
        value, gradient = jax.value_and_grad(loss)(state.params, batch, key)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer's power
            change, optimiser_state = optimiser.update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, change)
        losses = state.losses.at[step].set(value.astype(jnp.float32))
        return State(params, optimiser_state, _average(state.average, params, step), losses)

    return update


def _average(average: Any, params: Any, step: Array) -> Any:
    """Exponential moving average; at first over fewer updates, so that the start is forgotten."""
    done = step.astype(jnp.float32) + 1
    decay = jnp.minimum(np.float32(_EMA_DECAY), done / (done + 9))
    return jax.tree.map(lambda a, p: a + (1 - decay).astype(a.dtype) * (p - a), average, params)


def _order(key: Array, n: int, batch: int) -> Callable[[int], Int[np.ndarray, " batch"]]:
    """Step -> its rows: one permutation of all of them after another."""

    @functools.lru_cache(maxsize=batch // n + 2)  # as many epochs as a step can touch
    def permutation(epoch: int) -> np.ndarray:
        shuffle = jax.random.fold_in(jax.random.fold_in(key, 2**32 - 1), epoch)
        return np.asarray(jax.random.permutation(shuffle, n), np.int32)

    def order(step: int) -> np.ndarray:
        epochs, places = np.divmod(np.arange(step * batch, (step + 1) * batch), n)
        return np.array([permutation(int(e))[i] for e, i in zip(epochs, places, strict=True)])

    return order


def refuse_recipe(n: int, recipe: Recipe) -> None:
    """Refuses a recipe that n examples cannot be trained by.

    Raises:
        InputError: a number is out of range.
    """
    if recipe.steps < 1:
        raise InputError(f"steps = {recipe.steps}; give at least 1")
    if not 1 <= recipe.batch <= n:
        raise InputError(f"batch = {recipe.batch} of {n} examples; give 1 to {n}")
    if not 0 < recipe.learning_rate < np.inf:
        raise InputError(f"learning_rate = {recipe.learning_rate}; give a finite number above 0")


def _refuse_steps(recipe: Recipe, callback_steps: Collection[int]) -> None:
    outside = sorted(s for s in callback_steps if not 1 <= s <= recipe.steps)
    if outside:
        raise InputError(f"callback_steps {outside} are outside 1 .. {recipe.steps}")


def _refuse_divergence(losses: Array, done: int) -> None:
    bad = np.flatnonzero(~np.isfinite(np.asarray(losses)[:done]))
    if len(bad):
        raise InputError(
            f"the loss became nan or infinite at update {bad[0] + 1}; lower the learning rate"
        )
