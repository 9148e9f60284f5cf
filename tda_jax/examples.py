"""What is scored: one track's arrays, and a corpus of them.

The sign of a score is said here, once: **higher means more support**. A positive score of a track
says that the track's loss rises when the model forgets the query.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float64, Int, Num

from tda_jax import columns, compressed, facts, fingerprint
from tda_jax.columns import Column
from tda_jax.errors import InputError
from tda_jax.facts import Facts

_SAID = {".latent": "latents", ".mask": "masks"}
_SHOWN = 5  # offenders that a message names; the rest are counted


class Example(NamedTuple):
    """One track (or one query) as a model sees it; with a leading axis, several of them.

    Attributes:
        latent: (frames, ..., channels), in the scaling that the network was trained on. Frames
            run in time.
        condition: any tree of arrays that the model takes; None for an unconditional model.
        mask: (frames,), 1 where a frame is music and 0 where it is padding. Values between weigh.
    """

    latent: Num[Array, "..."] | Num[np.ndarray, "..."] | Column
    condition: Any
    mask: Num[Array, "..."] | Num[np.ndarray, "..."] | Column


class Corpus(NamedTuple):
    """Tracks to be scored.

    Attributes:
        ids: n names, each once. The random draws of a track are a function of its id.
        examples: arrays with a leading axis of n, in the order of `ids`, or columns that are read
            when they are asked for (`columns`).
        members: True for tracks that the model was trained on, False for decoys.
        metadata: n mappings that are carried along to the results.
        seen: what was told by reading columns once, with what it is of; see `facts_of`. No array of
            a corpus may be changed in place.
    """

    ids: tuple[str, ...]
    examples: Example
    members: Bool[np.ndarray, " n"]
    metadata: Sequence[Mapping[str, Any]]
    seen: tuple[Any, Facts] | None = None


def corpus_of(
    ids: Sequence[str],
    latents: Float[np.ndarray, "n ..."] | Column,
    condition: Any = None,
    masks: Num[np.ndarray, "n frames"] | Bool[np.ndarray, "n frames"] | Column | None = None,
    members: Bool[np.ndarray, " n"] | None = None,
    metadata: Sequence[Mapping[str, Any]] | None = None,
) -> Corpus:
    """A corpus from arrays or columns, checked and put in the order of its ids.

    The order is by id, so that nothing that is stored by position depends on the order given.

    Args:
        ids: one name for each track.
        latents: (n, frames, ..., channels), in the network's scaling.
        condition: a tree of arrays with a leading axis of n.
        masks: 1 where a frame is valid; by default every frame is.
        members: False for decoys, which the model was not trained on; by default all True.
        metadata: anything to be carried along.

    Raises:
        InputError: ids repeat; an array's first axis is not n; latents are no floats, members no
            bools, a condition no numbers; a value is not finite; a mask has no valid frame, or a
            value outside 0 .. 1.
    """
    n = len(ids)
    latents = columns.as_array(latents)
    masks = np.ones(latents.shape[:2], np.float32) if masks is None else columns.as_array(masks)
    members = np.ones(n, bool) if members is None else np.asarray(members)
    metadata = [{} for _ in ids] if metadata is None else metadata
    masks = columns.mapped(lambda x: x.astype(np.float32), masks)
    examples = Example(latents, jax.tree.map(columns.as_array, condition), masks)
    _refuse(ids, examples, members, metadata)
    seen = _look(ids, examples, members)
    order = np.array(sorted(range(n), key=ids.__getitem__))
    corpus = Corpus(
        tuple(ids[i] for i in order),
        jax.tree.map(lambda x: columns.taken(x, order), examples),
        members[order],
        compressed.taken(metadata, order),
    )
    return _with(corpus, seen, order)


def facts_of(corpus: Corpus) -> Facts | None:
    """What is known of each row without reading it; None of arrays, and of what was changed."""
    if corpus.seen is None:
        return None
    of, found = corpus.seen
    here = (corpus.ids, corpus.examples, corpus.members)
    return found if all(x is y for x, y in zip(of, here, strict=True)) else None


def _with(corpus: Corpus, seen: Facts | None, rows: np.ndarray) -> Corpus:
    """A corpus that knows what is told of some rows of that of which `seen` is."""
    if seen is None:
        return corpus
    of = (corpus.ids, corpus.examples, corpus.members)
    return corpus._replace(seen=(of, Facts(*(values[rows] for values in seen))))


def joined(first: Corpus, second: Corpus) -> Corpus:
    """Two corpora as one, in the order of the ids.

    Raises:
        InputError: an id stands in both; their latents or conditions are of different shapes.
    """
    if both := sorted(set(first.ids) & set(second.ids)):
        raise InputError(f"{both[:_SHOWN]} stand in both; rename them on one side")
    kinds = [
        (jax.tree.structure(c.examples), [x.shape[1:] for x in jax.tree.leaves(c.examples)])
        for c in (first, second)
    ]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"latents and conditions of the shapes {kinds[0][1]} and {kinds[1][1]} do not go "
            "together; give those of one window and one model"
        )
    together = jax.tree.map(lambda *x: np.concatenate(x), first.examples, second.examples)
    return corpus_of(
        [*first.ids, *second.ids],
        together.latent,
        together.condition,
        together.mask,
        np.concatenate([first.members, second.members]),
        [*first.metadata, *second.metadata],
    )


def take(corpus: Corpus, rows: Sequence[int] | np.ndarray) -> Corpus:
    """The tracks at some positions, in that order; columns stay columns.

    Raises:
        InputError: the positions are no whole numbers, such as a mask of bools.
    """
    rows = np.asarray(rows)
    if rows.size and rows.dtype.kind not in "iu":
        raise InputError(f"rows of dtype {rows.dtype}; give positions, np.flatnonzero of a mask")
    rows = rows.astype(np.int64)
    some = Corpus(
        tuple(corpus.ids[i] for i in rows),
        jax.tree.map(lambda x: columns.taken(x, rows), corpus.examples),
        corpus.members[rows],
        compressed.taken(corpus.metadata, rows),
    )
    return _with(some, facts_of(corpus), rows)


def in_memory(corpus: Corpus) -> Corpus:
    """A corpus with its columns read."""
    return corpus._replace(examples=columns.in_memory(corpus.examples))


def corpus_fingerprint(corpus: Corpus) -> str:
    """One sha256, in hexadecimal, over what decides the scores of a corpus.

    Ids, latents, conditions and masks with their shapes and dtypes, and who is a member, change
    it; metadata and the order of the tracks do not.
    """
    arrays, known = _arrays(corpus.examples), facts_of(corpus)
    header = [f"{name} {x.dtype.name} {x.shape[1:]}" for name, x in arrays.items()]
    if known is not None:
        return fingerprint.of_text(*header, *sorted(p.decode() for p in known.prints))
    tracks = [
        track
        for rows, some in columns.blocks(tuple(arrays.values()))
        for track in facts.prints(corpus.ids[rows], corpus.members[rows], facts.digests(some))
    ]
    return fingerprint.of_text(*header, *sorted(tracks))


def moments(corpus: Corpus) -> Float64[np.ndarray, "n 3"]:
    """Of each latent how many values are valid, their sum and that of their squares."""
    return _moments_and_levels(corpus)[0]


def lengths_and_levels(corpus: Corpus) -> Float64[np.ndarray, "n 2"]:
    """Valid frames of each latent, and its root mean square over them."""
    return _moments_and_levels(corpus)[1]


def _moments_and_levels(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    known, arrays = facts_of(corpus), (corpus.examples.latent, corpus.examples.mask)
    if known is not None:
        return known.moments, known.levels
    each = (facts.moments_and_levels(*some) for _, some in columns.blocks(arrays))
    moments, levels = (np.concatenate(found) for found in zip(*each, strict=True))
    return moments, levels


def first_frames(counts: Sequence[int] | Int[np.ndarray, " n"], frames: int) -> Column:
    """Masks (n, frames) that keep so many frames from the first; they take no memory."""
    kept = np.asarray(counts, np.int64)

    def read(rows: np.ndarray) -> np.ndarray:
        return (np.arange(frames) < kept[rows, None]).astype(np.float32)

    return Column((len(kept), frames), np.dtype(np.float32), read)


def unmasked(examples: Example) -> Example:
    """The same examples with every frame counted, padding too."""
    return examples._replace(mask=columns.mapped(np.ones_like, examples.mask))


def in_dtype(examples: Example, dtype: Any) -> Example:
    """The same examples with latents and floating conditions in another floating type."""

    def cast(x: Any) -> Any:
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return columns.mapped(lambda rows: rows.astype(dtype), x) if floating else x

    return examples._replace(
        latent=cast(examples.latent), condition=jax.tree.map(cast, examples.condition)
    )


def _named(ids: Sequence[str], bad: np.ndarray) -> str:
    names = [ids[i] for i in np.flatnonzero(bad)]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{names[:_SHOWN]}{more}"


def _refuse(
    ids: Sequence[str], examples: Example, members: np.ndarray, metadata: Sequence[Any]
) -> None:
    if not ids:
        raise InputError("the corpus is empty; give at least one track")
    _refuse_ids(ids)
    n = len(ids)
    leaves = {"latents": examples.latent, "masks": examples.mask, "members": members}
    for path, leaf in jax.tree_util.tree_leaves_with_path(examples.condition):
        leaves["condition" + jax.tree_util.keystr(path)] = leaf
    if members.ndim != 1 or members.dtype != bool:
        raise InputError(f"members are {members.dtype}{list(members.shape)}; give {n} bools")
    for name, leaf in leaves.items():
        if leaf.dtype != bool and not jnp.issubdtype(leaf.dtype, jnp.number):
            raise InputError(f"{name} are of dtype {leaf.dtype}; give numbers or bools")
        if leaf.shape[:1] != (n,):
            raise InputError(f"{name} has shape {leaf.shape} for {n} ids; its first axis must be n")
    if len(metadata) != n:
        raise InputError(f"{len(metadata)} metadata for {n} ids; give one for each track or none")
    if not jnp.issubdtype(examples.latent.dtype, jnp.floating):
        raise InputError(f"latents are of dtype {examples.latent.dtype}; give floating numbers")
    if (
        examples.latent.ndim < 3
        or 0 in examples.latent.shape
        or examples.mask.shape != examples.latent.shape[:2]
    ):
        raise InputError(
            f"latents of shape {examples.latent.shape} and masks of shape {examples.mask.shape}; "
            "give latents (n, frames, ..., channels), no axis of length 0, and masks (n, frames)"
        )


def _arrays(examples: Example) -> dict[str, columns.Array]:
    """The arrays of examples by name."""
    leaves = jax.tree_util.tree_leaves_with_path(examples)
    return {jax.tree_util.keystr(path): columns.as_array(leaf) for path, leaf in leaves}


def _look(ids: Sequence[str], examples: Example, members: np.ndarray) -> Facts | None:
    """Refuses values that cannot be used; of columns, what else that reading tells."""
    arrays = _arrays(examples)
    kept = any(isinstance(x, Column) for x in arrays.values())
    found: list[tuple[np.ndarray, ...]] = []
    for rows, some in columns.blocks(tuple(arrays.values())):
        by_name = dict(zip(arrays, some, strict=True))
        latent, mask = by_name[".latent"], by_name[".mask"]
        told = (facts.faults(mask, some),)
        if kept:
            rows_of = facts.digests(some)
            prints = facts.prints(ids[rows], members[rows], rows_of)
            latents = rows_of[list(arrays).index(".latent")]
            told += (np.array(prints, "S64"), np.array(latents, "S64"))
            with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # it is refused
                told += facts.moments_and_levels(latent, mask)
        found.append(told)
    faults, *others = (np.concatenate(each) for each in zip(*found, strict=True))
    _refuse_values(ids, list(arrays), faults)
    return Facts(*others) if kept else None


def _refuse_ids(ids: Sequence[str]) -> None:
    odd = [i for i in ids if not isinstance(i, str) or not i]
    if odd:
        raise InputError(f"ids {odd[:_SHOWN]} are no names; give strings that are not empty")
    unsaid = [i for i in ids if not _is_unicode(i)]
    if unsaid:
        raise InputError(f"ids {unsaid[:_SHOWN]} are no Unicode; rename these tracks")
    twice = sorted({one for one, other in pairwise(sorted(ids)) if one == other})
    if twice:
        raise InputError(f"the ids {twice[:_SHOWN]} repeat ({len(twice)} in all); give each once")


def _is_unicode(name: str) -> bool:
    """Whether UTF-8 can write it; names of files in another encoding hold lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _refuse_values(ids: Sequence[str], names: Sequence[str], faults: np.ndarray) -> None:
    empty, outside, *bad = faults.T
    for name, each in zip(names, bad, strict=True):
        if each.any():
            raise InputError(
                f"{_SAID.get(name, name[1:])} of {_named(ids, each)} hold nan or inf; mend or "
                "leave out these tracks"
            )
    if empty.any():
        raise InputError(f"the masks of {_named(ids, empty)} keep no frame; leave out these tracks")
    if outside.any():
        raise InputError(f"the masks of {_named(ids, outside)} leave 0 .. 1; 1 is a valid frame")
