"""What is computed once of a query and kept: the blocks of its gradient, and its step.

Each is an artifact with the fingerprint of what made it.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tda_jax import artifact, examples, places
from tda_jax import params as tree
from tda_jax.attribution import unlearn
from tda_jax.attribution.contract import Model
from tda_jax.attribution.settings import Settings, made_of
from tda_jax.places import Place

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total), called as work goes on."""

UNUSABLE = "unusable"  # the note of an artifact that says why there is nothing
ZERO = "zero"  # the note of a block whose gradient is zero throughout


def silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


def slug(name: str) -> str:
    """A file name for an id: readable, and different for different ids."""
    plain = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._")[:60]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def unlearning_examples(corpus: examples.Corpus, settings: Settings) -> examples.Example:
    """The examples as unlearning sees them: M_U decides whether padding counts.

    A mask over a part of a query is no padding. It is kept in either case: the frames outside
    `query_frames`, which the metadata name, never count.
    """
    if settings.mask_unlearn:
        return corpus.examples
    mask = np.ones_like(corpus.examples.mask)
    for row, metadata in zip(mask, corpus.metadata, strict=True):
        if metadata.get("query_frames"):
            start, stop = metadata["query_frames"]
            row[:start], row[stop:] = 0, 0
    return corpus.examples._replace(mask=mask)


def kept(
    path: Place,
    source: Mapping[str, Any],
    make: Callable[[], tuple[tree.Flat, Mapping[str, Any]]],
) -> tuple[tree.Flat, dict[str, Any]]:
    """Arrays and notes of a query from their artifact, or made now.

    That it is unusable is kept, too: every process comes to know of it, and none tries again.

    Raises:
        UnusableQuery: `make` raised it, now or before.
        InputError: the artifact there was made from something else.
    """
    if not places.exists(path):
        try:
            arrays, notes = make()
        except unlearn.UnusableQuery as error:
            arrays, notes = {}, {UNUSABLE: str(error)}
        artifact.save(path, arrays, source, notes)
    arrays, found = artifact.load(path, source)
    if UNUSABLE in found:
        raise unlearn.UnusableQuery(found[UNUSABLE])
    return arrays, found


def query_block(
    query: examples.Corpus,
    settings: Settings,
    block: int,
    moved: tree.Flat,
    made: unlearn.GradientPass,
    placed: Any,
    folder: Place,
    source: Mapping[str, Any],
) -> tuple[tree.Flat, float]:
    """One block of a query's gradient at θ0 and its mean loss, from their artifact or made now.

    Args:
        query: a corpus of one.
        settings: `mask_unlearn` counts, and what the pass was made from.
        block: 0 .. blocks-1.
        moved: the group.
        made: from `unlearn.make_gradient`.
        placed: from `unlearn.place`.
        folder: of the artifacts of all blocks.
        source: what they are made from.

    Raises:
        InputError: the artifact there was made from something else; the gradient is unusable.
    """

    def make() -> tuple[tree.Flat, Mapping[str, Any]]:
        one = one_query(query, settings)
        mean, loss = unlearn.block_gradient(made, placed, no_step(moved), one, query.ids[0], block)
        return mean, {"loss": loss, ZERO: not any(np.any(leaf) for leaf in mean.values())}

    arrays, notes = kept(folder / f"{block}.safetensors", {**source, "block": block}, make)
    return arrays, notes["loss"]


def one_query(query: examples.Corpus, settings: Settings) -> examples.Example:
    """The arrays of a corpus of one, without the leading axis, as unlearning sees them."""
    return jax.tree.map(lambda x: x[0], unlearning_examples(query, settings))


def no_step(moved: tree.Flat) -> tree.Flat:
    """Zeros like the group's parameters, which leave them as they are."""
    return {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in moved.items()}


def final_step(
    query: examples.Corpus,
    blocks: tree.Flat,
    information: tree.Flat,
    settings: Settings,
    made: unlearn.GradientPass,
    placed: Any,
    rate: float,
) -> tree.Flat:
    """Δ after all steps: the first along the direction at θ0, the others along where they stand.

    Args:
        query: a corpus of one.
        blocks: the direction at θ0, preconditioned.
        information: F.
        settings: `steps`, `damping`, `corpus_size` and `mask_unlearn` count.
        made: from `unlearn.make_gradient`.
        placed: from `unlearn.place`.
        rate: the learning rate of each step.

    Raises:
        UnusableQuery: a gradient on the way is not finite, or Δ is not.
    """
    u = unlearn.mean_of_blocks(blocks)
    step = unlearn.next_step(no_step(u), u, rate)
    for _ in range(settings.steps - 1):
        one = one_query(query, settings)
        gradient = unlearn.query_gradient(made, placed, step, one, query.ids[0])
        mean = unlearn.mean_of_blocks(gradient.blocks)
        u = unlearn.preconditioned(mean, information, settings.damping, settings.corpus_size)
        step = unlearn.next_step(step, u, rate)
    if not all(np.isfinite(leaf).all() for leaf in step.values()):
        raise unlearn.UnusableQuery(
            f"query {query.ids[0]!r}: the step is not finite; raise the damping or lower the rate, "
            "in another workdir"
        )
    return step


def query_source(
    model: Model, query: examples.Corpus, settings: Settings, code: Mapping[str, Any]
) -> dict[str, Any]:
    """What a query's gradients are made from."""
    names = ("group", "query_draws", "blocks", "mask_unlearn", "seed")
    return {
        **made_of(model, examples.corpus_fingerprint(query), settings, *names),
        "query": query.ids[0],
        "query_frames": list(query.metadata[0].get("query_frames") or []),
        **code,
    }
