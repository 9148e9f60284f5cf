"""What is computed once and kept: the Fisher information of a corpus, and a query's gradients.

Both are artifacts with the fingerprint of what made them. A run that is killed goes on from its
last saved part and adds the same numbers in the same order, so the result is the same to the bit.
"""

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float64, Int

from tda_jax import artifact, devices, examples, fingerprint, keys
from tda_jax import params as tree
from tda_jax.attribution import fisher, units, unlearn
from tda_jax.attribution.contract import Model, split_group
from tda_jax.attribution.settings import Compute, Settings, made_of

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total), called as work goes on."""

_SAVE_EVERY = 60.0  # seconds between saved parts of a long sum


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


class FisherRows(NamedTuple):
    """The rows of a corpus that the Fisher information is made of.

    Attributes:
        rows: positions in the corpus, in the order of their ids.
        weights: 1/U for each of the U units of a track; None where every row is a whole track.
        tracks: how many tracks they are of.
    """

    rows: Int[np.ndarray, " n"]
    weights: Float64[np.ndarray, " n"] | None
    tracks: int


def fisher_rows(corpus: examples.Corpus, settings: Settings) -> FisherRows:
    """All units of the members of a corpus, or of `fisher_tracks` of them at random.

    Args:
        corpus: decoys in it are passed over, since the model was not trained on them.
        settings: `fisher_tracks` and `seed` count.

    Raises:
        InputError: there are fewer tracks; rows of the corpus cannot be units of one track.
    """
    tracks = units.tracks_of(corpus)
    names = [name for name, member in zip(tracks.ids, tracks.members, strict=True) if member]
    if settings.fisher_tracks is not None:
        names = keys.subset(names, settings.fisher_tracks, settings.seed)
    picked = set(names)
    chosen = np.array([name in picked for name in tracks.ids])
    # In the order of ids: a resumed sum goes on in the same one, whatever the corpus's is.
    rows = sorted(np.flatnonzero(chosen[tracks.of_unit]).tolist(), key=corpus.ids.__getitem__)
    of_unit = tracks.of_unit[rows]
    weights = 1 / np.bincount(of_unit)[of_unit]
    whole = len(names) == len(rows)
    return FisherRows(np.array(rows, np.int64), None if whole else weights, len(names))


def fisher_tracks_print(corpus: examples.Corpus) -> dict[str, str]:
    """What decides picks and weights of a corpus's rows and is not in its own fingerprint.

    Returns:
        `tracks`, a sha256 of which member row is of which track; nothing where each is of itself.

    Raises:
        InputError: rows of the corpus cannot be units of one track.
    """
    tracks = units.tracks_of(corpus)
    of_members = np.flatnonzero(corpus.members)
    pairs = sorted((corpus.ids[i], tracks.ids[tracks.of_unit[i]]) for i in of_members)
    if all(row == track for row, track in pairs):
        return {}
    return {"tracks": fingerprint.of_text(*(name for pair in pairs for name in pair))}


def fisher_information(
    model: Model,
    corpus: examples.Corpus,
    settings: Settings,
    compute: Compute,
    path: Path,
    source: Mapping[str, Any],
    progress: Progress = silent,
) -> tuple[tree.Flat, dict[str, Any]]:
    """The Fisher information over the members of a corpus, from its artifact or made now.

    Tracks count alike: each of the U units of one weighs 1/U.

    Args:
        model: what to attribute.
        corpus: decoys in it are passed over, since the model was not trained on them.
        settings: `group`, `fisher_draws`, `fisher_tracks`, `mask_unlearn`, `seed` count.
        compute: devices and batch.
        path: of the artifact; a part of the sum is kept beside it.
        source: what it is made from, from `settings.made_of`, `fisher_tracks_print` and more.
        progress: told of rows done.

    Returns:
        F, path -> array, and notes: tracks, units where these are more, draws, and draws left out
        with their reasons.

    Raises:
        InputError: the artifact there was made from something else; no draw was usable; rows of
            the corpus cannot be units of one track.
    """
    if path.exists():
        return artifact.load(path, source)
    chosen = fisher_rows(corpus, settings)
    used, n = examples.take(corpus, chosen.rows), len(chosen.rows)
    made = fisher.make_fisher(
        model, settings.fisher_draws, settings.seed, compute.fisher_batch, compute.devices
    )
    placed = fisher.place(made, *split_group(model, settings.group))
    moved, _ = split_group(model, settings.group)
    part = path.with_suffix(".part.safetensors")
    total, begin = _resumed(made, moved, part, source)
    # `query_frames` in a track's metadata count for queries alone.
    data = used.examples if settings.mask_unlearn else examples.unmasked(used.examples)
    saved = time.monotonic()
    progress("Fisher information", begin, n)
    for start in range(begin, n, compute.chunk):
        rows = slice(start, start + compute.chunk)
        chunk, weights = jax.tree.map(lambda x, rows=rows: x[rows], (data, chosen.weights))
        total = fisher.add(made, total, placed, chunk, used.ids[rows], weights)
        done = min(start + compute.chunk, n)
        progress("Fisher information", done, n)
        if done < n and time.monotonic() - saved > _SAVE_EVERY:
            _save_part(part, total, done, source)
            saved = time.monotonic()
    counted = {"tracks": chosen.tracks} | ({} if n == chosen.tracks else {"units": n})
    notes = {**counted, "draws": total.count, "left_out": list(total.left_out)}
    artifact.save(path, fisher.information(total), source, notes)
    part.unlink(missing_ok=True)
    return artifact.load(path, source)


def _save_part(part: Path, total: fisher.FisherSum, done: int, source: Mapping[str, Any]) -> None:
    summed = {"count": total.count, "weight": total.weight}
    notes = {"done": done, **summed, "left_out": list(total.left_out)}
    artifact.save(part, jax.device_get(total.squares), source, notes)


def _resumed(
    made: fisher.FisherPass, moved: tree.Flat, part: Path, source: Mapping[str, Any]
) -> tuple[fisher.FisherSum, int]:
    """The sum so far and the rows in it: from the saved part, or nothing yet.

    The artifact keeps a float64 to the bit. A part of other code, so one without a weight, is
    refused by the fingerprint of the code in its `source`.
    """
    if not part.exists():
        return fisher.start(made, moved), 0
    squares, notes = artifact.load(part, source)
    total = fisher.FisherSum(
        devices.as_total(squares, made.mapped.devices),
        notes["count"],
        notes["weight"],
        tuple((i, d, reason) for i, d, reason in notes["left_out"]),
    )
    return total, notes["done"]


def query_gradients(
    model: Model,
    query: examples.Corpus,
    settings: Settings,
    made: unlearn.GradientPass,
    placed: Any,
    path: Path,
    source: Mapping[str, Any],
) -> unlearn.QueryGradient:
    """The gradients of one query at θ0, from their artifact or made now.

    Args:
        model: what to attribute.
        query: a corpus of one.
        settings: `group`, `query_draws`, `blocks`, `mask_unlearn`, `seed` count.
        made: from `unlearn.make_gradient`.
        placed: from `unlearn.place`.
        path: of the artifact.
        source: what it is made from.

    Raises:
        InputError: the artifact there was made from something else; the gradient is unusable.
    """
    if not path.exists():
        moved, _ = split_group(model, settings.group)
        gradient = unlearn.query_gradient(
            made, placed, no_step(moved), one_query(query, settings), query.ids[0]
        )
        artifact.save(path, gradient.blocks, source, {"loss": gradient.loss})
    blocks, notes = artifact.load(path, source)
    return unlearn.QueryGradient(blocks, notes["loss"])


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
            f"query {query.ids[0]!r}: the step is not finite; raise the damping or lower the rate"
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
