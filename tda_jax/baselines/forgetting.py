"""Forgetting a query by bounded ascent, while members are retained: how MUCS makes its model.

AdamW takes a copy of θ0 down

    L(retain batch) - 0.2 · min(L(ẑ), L_null)

where L_null is the loss of an untrained model: a query that is forgotten so far is pushed no
further. It ends when L(ẑ), over draws of its own, reaches 95 % of L_null (Serrà et al. 2026, arXiv
2605.17938).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from tda_jax import devices, examples, keys
from tda_jax import params as tree
from tda_jax.attribution import sweep
from tda_jax.attribution.contract import Model, loss_of
from tda_jax.attribution.rows import Row, layout, terms_of_draw
from tda_jax.baselines.contract import Task
from tda_jax.errors import InputError
from tda_jax.examples import Corpus, Example

_State = tuple[tree.Flat, optax.OptState]
MLP = r".*/transformer_blocks/.*/ff/.*"
_ASCENT = 0.2  # weight of the query's loss
_REACHED = 0.95  # share of L_null at which a query is forgotten


class Ascent(NamedTuple):
    """How a query is forgotten.

    Attributes:
        learning_rate: of AdamW; a tenth of that of training.
        untrained: random parameters, which nothing has trained, for L_null of each query over its
            evaluation draws; or L_null itself, for all queries. Random also where θ0 was fine-tuned
            from a common start: the start knows much of the query, so it is no null.
        pattern: of the paths of the parameters that move; the transformer's MLP layers.
        steps: of AdamW, at most.
        every: steps between two evaluations of L(ẑ).
        retain: members in a step's retain batch, each with one draw.
        asked: draws of the query in a step.
        evaluation: draws of L(ẑ).
        weight_decay: of AdamW.
    """

    learning_rate: float
    untrained: Mapping[str, Any] | float
    pattern: str = MLP
    steps: int = 200
    every: int = 10
    retain: int = 16
    asked: int = 16
    evaluation: keys.Draws = keys.Draws(4, 10)
    weight_decay: float = 0.01

    @property
    def passes(self) -> float:
        """Passes of a query that takes all steps: the most it can, and what is told in advance."""
        evaluations = 1 + -(-self.steps // self.every) + isinstance(self.untrained, Mapping)
        return 3.0 * self.steps * (self.retain + self.asked) + evaluations * self.evaluation.count


class Forgotten(NamedTuple):
    """What became of one query.

    Attributes:
        moved: the parameters that move, after the last step.
        steps: how many were taken; 0 for a query that is no better than untrained from the start.
        losses: L(ẑ) at each evaluation, before the first step and after the last one too.
        null: L_null.
    """

    moved: tree.Flat
    steps: int
    losses: tuple[float, ...]
    null: float


class _Sum(NamedTuple):
    """A pass that sums gradients over `count` (example, draw) pairs, `per_row` in a row."""

    mapped: devices.RowMap
    per_row: int
    count: int
    root: keys.Root


class Machinery(NamedTuple):
    """What all queries share; each part compiles at its first run.

    Attributes:
        retain: the pass that sums gradients over a retain batch.
        asked: the pass that sums them over a query's draws.
        evaluate: the sweep of L(ẑ).
        update: a step of AdamW.
        start: AdamW's state before the first step.
        moved: of θ0, the parameters that move.
        rest: of θ0, those that do not, on the devices.
        members: their positions in the corpus.
    """

    retain: _Sum
    asked: _Sum
    evaluate: sweep.Sweep
    update: Callable[..., _State]
    start: optax.OptState
    moved: tree.Flat
    rest: tree.Flat
    members: Int[np.ndarray, " m"]


def prepare(plan: Ascent, task: Task) -> Machinery:
    """Prepares what all queries share.

    Raises:
        InputError: a number of the plan is out of range, its pattern selects nothing, or the corpus
            has no member.
    """
    refuse(plan)
    members = np.flatnonzero(task.corpus.members)
    if not len(members):
        raise InputError("the corpus has no member; MUCS retains what the model was trained on")
    moved, rest = _split(task.model.params, plan.pattern)
    optimiser = optax.adamw(plan.learning_rate, weight_decay=plan.weight_decay)
    model, seed, batch, used = task.model, task.seed, task.batch, task.used
    domain = keys.Domain.CALIBRATION  # not the noise that the query is pushed by
    return Machinery(
        _sum(task, plan.retain, keys.Domain.RETAIN),
        _sum(task, plan.asked, keys.Domain.QUERY),
        sweep.make_sweep(model, plan.evaluation, seed, batch, used, domain),
        jax.jit(_update(optimiser, plan)),
        optimiser.init(moved),
        moved,
        devices.replicate(rest, used),
        members,
    )


def forget(plan: Ascent, task: Task, made: Machinery, query: Corpus) -> Forgotten:
    """Fine-tunes a copy of θ0 until it has forgotten a query.

    Args:
        plan: how.
        task: what is attributed.
        made: from `prepare`.
        query: one row; its mask says which frames are forgotten.

    Raises:
        InputError: its loss became nan or infinite, or is so under the untrained parameters.
    """
    null = _null(plan, made, query)
    moved, state, losses, step = made.moved, made.start, [], 0
    while True:
        if step % plan.every == 0 or step == plan.steps:
            when = f"after {step} steps of MUCS; lower learning_rate = {plan.learning_rate}"
            losses.append(_loss(made, moved, made.rest, query, when))
            if losses[-1] >= _REACHED * null or step == plan.steps:
                return Forgotten(moved, step, tuple(losses), null)
        moved, state = _step(task, made, query, null, (moved, state), step)
        step += 1


def retained(
    ids: Sequence[str], count: int, seed: int, query: str, step: int
) -> Int[np.ndarray, " count"]:
    """Positions of a step's retain batch: the members of the lowest hashes.

    A function of (seed, query, step) and which members there are; repeated in turn where they are
    fewer than asked for.
    """
    salt = keys.root(seed, keys.Domain.RETAIN).tobytes() + keys.track_words([query]).tobytes()
    salt += step.to_bytes(8, "big")
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(salt + ids[i].encode()).digest())
    return np.resize(np.asarray(order), count)


def refuse(plan: Ascent) -> None:
    """Refuses numbers that are out of range.

    Raises:
        InputError: one is.
    """
    for name in ("steps", "every", "retain", "asked"):
        if getattr(plan, name) < 1:
            raise InputError(f"{name} = {getattr(plan, name)} of MUCS; give 1 at least")
    if not 0 < plan.learning_rate < np.inf:
        raise InputError(f"learning_rate = {plan.learning_rate} of MUCS; give one above 0")
    if not isinstance(plan.untrained, Mapping) and not 0 < plan.untrained < np.inf:
        raise InputError(f"untrained = {plan.untrained} of MUCS; give parameters, or a loss > 0")


def _split(params: Mapping[str, Any], pattern: str) -> tuple[tree.Flat, tree.Flat]:
    try:
        return tree.split(params, pattern)
    except InputError as error:
        raise InputError(
            f"{error}. MUCS moves MLP layers: give `pattern` for those of this model"
        ) from error


def _null(plan: Ascent, made: Machinery, query: Corpus) -> float:
    """L_null of a query."""
    if not isinstance(plan.untrained, Mapping):
        return float(plan.untrained)
    moved, rest = _split(plan.untrained, plan.pattern)
    return _loss(made, moved, rest, query, "under the untrained parameters; give others")


def _loss(made: Machinery, moved: tree.Flat, rest: tree.Flat, query: Corpus, when: str) -> float:
    """L(ẑ) over the evaluation draws; refused if it is not finite."""
    placed = sweep.place(made.evaluate, moved, rest)
    found = sweep.losses(made.evaluate, placed, placed[0], query.examples, query.ids)
    loss = float(found.draws.mean(dtype=np.float64))
    if not np.isfinite(loss):
        raise InputError(f"query {query.ids[0]!r}: its loss is {loss} {when}")
    return loss


def _step(task: Task, made: Machinery, query: Corpus, null: float, at: _State, step: int) -> _State:
    """One step of AdamW; draw i of step s is draw s · count + i, in stratum i of `count`."""
    (moved, state), name = at, query.ids[0]
    names = [task.corpus.ids[i] for i in made.members]
    chosen = made.members[retained(names, made.retain.count, task.seed, name, step)]
    kept = examples.unmasked(examples.take(task.corpus, chosen).examples)
    asked = jax.tree.map(lambda x: np.repeat(x, made.asked.count, 0), query.examples)
    of_retain, _ = _gradient(made.retain, moved, made.rest, kept, name, step)
    of_query, loss = _gradient(made.asked, moved, made.rest, asked, name, step)
    pushed = np.asarray(loss < null)  # the gradient of min(L, L_null) is 0 beyond
    return made.update(moved, state, of_retain, of_query, pushed)


def _update(optimiser: optax.GradientTransformation, plan: Ascent) -> Callable[..., Any]:
    def update(
        moved: tree.Flat, state: optax.OptState, retain: tree.Flat, query: tree.Flat, pushed: Array
    ) -> _State:
        def combined(kept: Array, asked: Array) -> Array:
            return kept / plan.retain - _ASCENT * pushed.astype(asked.dtype) * asked / plan.asked

        gradient = jax.tree.map(combined, retain, query)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer's power
            updates, state = optimiser.update(gradient, state, moved)
        return optax.apply_updates(moved, updates), state

    return update


def _sum(task: Task, count: int, domain: keys.Domain) -> _Sum:
    laid = layout(count, task.batch)
    mapped = devices.row_sum(_gradients(task.model, count), task.used, 1)
    return _Sum(mapped, laid.per_row, count, keys.root(task.seed, domain))


def _gradients(model: Model, strata: int) -> Callable[[Any, Any], Any]:
    """(parameters, pairs) -> (the sum over pairs of their gradients, True, their losses)."""

    def of_row(shared: Any, row: Row) -> tuple[tree.Flat, Bool[Array, ""], Float[Array, " k"]]:
        moved, rest, root = shared

        def total(moved: tree.Flat) -> tuple[Float[Array, ""], Float[Array, " k"]]:
            params = tree.merge(moved, rest)

            def of_pair(pair: Row) -> Float[Array, ""]:
                return loss_of(terms_of_draw(model, strata, params, root, pair, pair.draws))

            losses = jax.vmap(of_pair)(row)
            return losses.sum(), losses

        gradient, losses = jax.grad(total, has_aux=True)(moved)
        return gradient, jnp.asarray(True), losses

    return of_row


def _gradient(
    made: _Sum, moved: tree.Flat, rest: tree.Flat, pairs: Example, name: str, step: int
) -> tuple[tree.Flat, float]:
    """The summed gradients of `count` examples with a draw each, and their mean loss."""
    used = made.mapped.devices
    placed, root = devices.replicate((moved, made.root), used)
    words = np.repeat(keys.track_words([name]), made.count, 0)
    draws = step * made.count + np.arange(made.count, dtype=np.int32)
    whole = jax.tree.map(
        lambda x: x.reshape(-1, made.per_row, *x.shape[1:]), Row(pairs, words, draws)
    )

    def rows(positions: np.ndarray) -> Row:
        return jax.tree.map(lambda x: x[positions], whole)

    zero, count = devices.zeros(moved, used), made.count // made.per_row
    total, losses = devices.add_rows(made.mapped, zero, (placed, rest, root), rows, count)
    return devices.over_devices(total), float(losses.mean(dtype=np.float64))
