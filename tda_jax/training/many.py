"""Several models trained side by side, each on tracks of its own: what retraining takes.

Models are spread over devices as the tracks of a sweep are, and mapped on each. All models of a
seed read one stream of tracks, each passing over what it must not see, and meet the same timesteps
and noise: two of them differ by the tracks they saw.

Parameters lie in one vector while they are trained: of a small network's update a third would
otherwise go into the optimiser's many small operations. Every update is a call of its own. A loop
of updates inside one program takes several times as long on a CPU, where XLA runs the convolutions
of a loop on one thread; `benchmarks/retraining.py` measures both.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int

from tda_jax import devices
from tda_jax.errors import InputError
from tda_jax.keys import Domain, root
from tda_jax.named_draws import generator
from tda_jax.training import loop

_SHOWS = 50  # updates between two signs of progress


class Job(NamedTuple):
    """One model to be trained.

    Attributes:
        kept: positions of the examples that it sees.
        seed: of order and draws.
    """

    kept: Int[np.ndarray, " k"]
    seed: int


class Trainer(NamedTuple):
    """A compiled update of several models at a time.

    Attributes:
        mapped: the update over devices.
        start: where every model starts; its parameters are one vector.
        unravel: that vector -> the tree of parameters.
        data: the examples, on the devices.
        recipe: how each is trained; its seed counts for nothing.
        at: numbers of updates after which parameters are kept, rising.
        n: how many examples there are.
    """

    mapped: devices.RowMap
    start: loop.State
    unravel: Callable[[Array], Any]
    data: Any
    recipe: loop.Recipe
    at: tuple[int, ...]
    n: int

    @property
    def together(self) -> int:
        """How many models are trained at a time."""
        return len(self.mapped.devices) * self.mapped.batch


def make_trainer(
    loss: loop.Loss,
    params: Any,
    data: Any,
    recipe: loop.Recipe,
    at: Sequence[int],
    used: tuple[jax.Device, ...],
    per_device: int = 1,
) -> Trainer:
    """Prepares the training; it compiles at its first run.

    Args:
        loss: of a batch, see `loop.Loss`.
        params: to start from.
        data: arrays with a leading axis of n, of which a batch is made.
        recipe: `steps`, `batch` and `learning_rate` count.
        at: numbers of updates after which the averaged parameters are kept; the last is `steps`.
        used: local devices.
        per_device: models that a device trains at a time. On a CPU one: convolutions with weights
            of each model's own take longer there than the models one after the other.

    Raises:
        InputError: a number is out of range.
    """
    n = jax.tree.leaves(data)[0].shape[0]
    loop.refuse_recipe(n, recipe)
    if not at or sorted(set(at)) != list(at) or at[0] < 1 or at[-1] != recipe.steps:
        raise InputError(f"at = {at}; give rising numbers of updates, the last {recipe.steps}")
    vector, unravel = ravel_pytree(params)
    optimiser = loop.optimiser_of(recipe)
    update = loop.update_of(lambda v, rows, key: loss(unravel(v), rows, key), optimiser)

    def one(state: loop.State, data: Any, row: tuple[Array, Array], step: Array) -> loop.State:
        words, rows = row
        key = jax.random.wrap_key_data(words, impl="threefry2x32")
        batch = jax.tree.map(lambda x: x[rows], data)
        return update(state, batch, jax.random.fold_in(key, step), step)

    return Trainer(
        devices.row_states(one, used, per_device),
        loop.start_of(vector, optimiser, recipe.steps),
        unravel,
        devices.replicate(data, used),
        recipe,
        tuple(at),
        n,
    )


def train(
    trainer: Trainer,
    jobs: Sequence[Job],
    callback: Callable[[int], None] | None = None,
    until: int | None = None,
) -> list[dict[int, Any]]:
    """Trains models; of which others they are trained beside, they depend by rounding at most.

    Args:
        trainer: from `make_trainer`.
        jobs: 1 to `trainer.together`.
        callback: called now and then with the number of updates done.
        until: one of `trainer.at`, after which no more is done; by default the last. The learning
            rate is that of the whole recipe all the same.

    Returns:
        For each job, by the number of updates, its averaged (EMA) parameters as numpy arrays.

    Raises:
        InputError: there are too many jobs, a job keeps no example, its loss became nan or
            infinite, or `until` is not kept.
    """
    until = trainer.recipe.steps if until is None else until
    if until not in trainer.at:
        raise InputError(f"until = {until} updates; give one of {trainer.at}")
    if not 1 <= len(jobs) <= trainer.together:
        raise InputError(f"{len(jobs)} models at a time; give 1 to {trainer.together}")
    padded = [*jobs, *[jobs[0]] * (trainer.together - len(jobs))]  # a program serves any number
    roots = np.stack([root(job.seed, Domain.TRAINING) for job in padded])
    orders = np.stack([order(trainer.n, trainer.recipe, job) for job in padded])
    state = devices.states(trainer.mapped, trainer.start)
    found: list[dict[int, Any]] = [{} for _ in jobs]
    for step in range(until):
        rows = (roots, orders[:, step])
        state = devices.moved_on(trainer.mapped, state, trainer.data, rows, np.int32(step))
        if callback is not None and (step + 1) % _SHOWS == 0:
            jax.block_until_ready(state)
            callback(step + 1)
        if step + 1 in trainer.at:
            _refuse_divergence(devices.by_row(state.losses)[: len(jobs), : step + 1], jobs)
            for job, vector in zip(found, devices.by_row(state.average), strict=False):
                job[step + 1] = jax.tree.map(np.asarray, trainer.unravel(vector))
    return found


def order(n: int, recipe: loop.Recipe, job: Job) -> Int[np.ndarray, "steps batch"]:
    """The examples of each update: one permutation of all n after another, less those not kept.

    Raises:
        InputError: the job keeps no example, or one that there is not.
    """
    kept = np.zeros(n, bool)
    if not len(job.kept) or min(job.kept) < 0 or max(job.kept) >= n:
        raise InputError(f"a model of the examples {job.kept} of {n}; keep some of them")
    kept[job.kept] = True
    wanted = recipe.steps * recipe.batch
    epochs = -(-wanted // int(kept.sum()))
    streams = (generator(job.seed, f"order of epoch {e}").permutation(n) for e in range(epochs))
    seen = np.concatenate([stream[kept[stream]] for stream in streams])
    return seen[:wanted].reshape(recipe.steps, recipe.batch).astype(np.int32)


def _refuse_divergence(losses: np.ndarray, jobs: Sequence[Job]) -> None:
    for own, job in zip(losses, jobs, strict=True):
        if not np.isfinite(own).all():
            raise InputError(
                f"the loss of a model of {len(job.kept)} examples and seed {job.seed} became nan "
                f"or infinite at update {int(np.argmin(np.isfinite(own))) + 1}; lower the learning "
                "rate"
            )
