"""Units and tracks: a row of a corpus may be one window and one caption of a track.

What a row is of stands in its metadata: `track`, the id of the track, and `window_start`, where the
window begins in it, in seconds. Rows without `track` are tracks themselves, so that a corpus
without such metadata has its rows for tracks, in the same order.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from tda_jax import columns, compressed
from tda_jax.errors import InputError
from tda_jax.examples import Corpus, Example, facts_of, lengths_and_levels

_TRACK, _START = "track", "window_start"
_SHOWN = 5  # units that a message names


class Tracks(NamedTuple):
    """The tracks of a corpus, and which rows of it are of which.

    Attributes:
        ids: of the tracks, in their order; for rows that all are tracks, in that of the rows.
        members: False for decoys.
        metadata: of each track: what its units share as it stands there, and of what they do not
            a list of the different values, windows and captions in order.
        of_unit: (rows,), the position of each row's track in `ids`.
        window: (rows,), which of its track's windows a row is of; 0 begins first.
        caption: (rows,), which of its window's captions a row is of, in the order of row ids.
        start: (rows,), where the row's window begins in the track, in seconds; nan if not said.
    """

    ids: tuple[str, ...]
    members: Bool[np.ndarray, " tracks"]
    metadata: Sequence[Mapping[str, Any]]
    of_unit: Int[np.ndarray, " rows"]
    window: Int[np.ndarray, " rows"]
    caption: Int[np.ndarray, " rows"]
    start: Float64[np.ndarray, " rows"]


class Counts(NamedTuple):
    """How much a corpus holds.

    Attributes:
        members: tracks that the model was trained on.
        decoys: tracks that it was not.
        windows: of all tracks.
        captions: of all tracks; one that several windows of a track share counts once.
    """

    members: int
    decoys: int
    windows: int
    captions: int


def tracks_of(corpus: Corpus) -> Tracks:
    """The tracks of a corpus.

    Args:
        corpus: with `track` and `window_start` in the metadata of rows that are not whole tracks.

    Raises:
        InputError: `track` is no name, or `window_start` no finite number; units of one track
            differ in membership; windows of one track differ in the number of captions, or only
            some have a start; captions of one window differ in the latent, so that they are none.
    """
    names = [_name(i, m) for i, m in zip(corpus.ids, corpus.metadata, strict=True)]
    ids = corpus.ids if tuple(names) == corpus.ids else tuple(sorted(set(names)))
    place = {name: i for i, name in enumerate(ids)}
    of_unit = np.array([place[name] for name in names], np.int64)
    pairs = zip(corpus.ids, corpus.metadata, strict=True)
    start = np.array([_start(i, m) for i, m in pairs], np.float64)
    window, caption = np.zeros((2, len(names)), np.int64)
    rows: list[list[int]] = [[] for _ in ids]
    for row in sorted(range(len(names)), key=corpus.ids.__getitem__):
        rows[of_unit[row]].append(row)
    for name, own in zip(ids, rows, strict=True):
        if len(own) > 1:
            _refuse_starts(name, own, corpus, start)
            window[own] = np.unique(start[own], return_inverse=True)[1]  # nan is one value
            caption[own] = _captions(window[own])
            _refuse(name, own, corpus, window)
    members = np.array([corpus.members[own[0]] for own in rows])
    sorted_rows = [sorted(own, key=lambda i: (window[i], caption[i])) for own in rows]
    shared = (_shared([corpus.metadata[i] for i in own]) for own in sorted_rows)
    packed = isinstance(corpus.metadata, compressed.Compressed)
    metadata = compressed.compress(shared) if packed else tuple(shared)
    return Tracks(ids, members, metadata, of_unit, window, caption, start)


def rows_of(tracks: Tracks, order: Int[np.ndarray, " tracks"]) -> Int[np.ndarray, " rows"]:
    """The rows of the corpus by track, and within one by window and then caption.

    Args:
        tracks: from `tracks_of`.
        order: positions of the tracks, each once, in the order that is wanted.
    """
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return np.lexsort((tracks.caption, tracks.window, rank[tracks.of_unit]))


def counts(tracks: Tracks) -> Counts:
    """How many tracks, windows and captions there are."""
    members = int(tracks.members.sum())
    windows, captions = int((tracks.caption == 0).sum()), int((tracks.window == 0).sum())
    return Counts(members, len(tracks.ids) - members, windows, captions)


def outline(corpus: Corpus, tracks: Tracks) -> Corpus:
    """A corpus of a row for each track, like it in length and loudness and in nothing else.

    For what compares members with decoys by these, such as `calibration.decoy_match`: tracks
    count alike there, however many units they have.

    Args:
        corpus: units.
        tracks: of it.

    Returns:
        The corpus itself where its rows are its tracks; else latents (tracks, frames, 1) of the
        root mean square over valid frames that a track's units have in the mean, and masks of as
        many frames as they have in the mean.
    """
    if tracks.ids == corpus.ids:
        return corpus
    n = np.bincount(tracks.of_unit)
    each = lengths_and_levels(corpus)
    frames, level = (np.bincount(tracks.of_unit, weights=x) / n for x in each.T)
    length = corpus.examples.mask.shape[1]

    def masks(rows: np.ndarray) -> np.ndarray:
        return np.clip(frames[rows, None] - np.arange(length), 0, 1)

    mask = columns.Column((len(frames), length), frames.dtype, masks)
    latent = np.broadcast_to(level[:, None, None], (*mask.shape, 1))
    return Corpus(tracks.ids, Example(latent, None, mask), tracks.members, tracks.metadata)


def _name(unit: str, metadata: Mapping[str, Any]) -> str:
    name = metadata.get(_TRACK)
    if name is None:
        return unit
    if not isinstance(name, str) or not name:
        raise InputError(
            f"the metadata of {unit!r} give the track {name!r}; give the id of the track that it "
            "is a part of, or rename that key"
        )
    return name


def _start(unit: str, metadata: Mapping[str, Any]) -> float:
    """Where the window of a unit begins; nan for a whole track, and where it is not said."""
    value = metadata.get(_START)
    if metadata.get(_TRACK) is None or value is None:
        return math.nan
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise InputError(
            f"the metadata of {unit!r} give the {_START} {value!r}; give seconds from the start of "
            "the track"
        )
    return float(value)


def _captions(window: np.ndarray) -> list[int]:
    """The position of each row among those of its window."""
    seen: dict[int, int] = {}
    found = []
    for one in window.tolist():
        found.append(seen.get(one, 0))
        seen[one] = found[-1] + 1
    return found


def _shared(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if len(entries) == 1:
        return entries[0]
    shared: dict[str, Any] = {}
    for key in dict.fromkeys(key for entry in entries for key in entry):
        values: list[Any] = []
        for entry in entries:
            if entry.get(key) not in values:
                values.append(entry.get(key))
        shared[key] = values[0] if len(values) == 1 else values
    return shared


def _same_latent(corpus: Corpus, one: int, other: int) -> bool:
    known, latents = facts_of(corpus), corpus.examples.latent
    if known is not None and known.latents[one] == known.latents[other]:
        return True
    return np.array_equal(np.asarray(latents[one]), np.asarray(latents[other]))


def _refuse_starts(name: str, rows: Sequence[int], corpus: Corpus, start: np.ndarray) -> None:
    unsaid = [corpus.ids[i] for i in rows if math.isnan(start[i])]
    if 0 < len(unsaid) < len(rows):
        raise InputError(
            f"track {name!r}: its units {unsaid[:_SHOWN]} have no {_START} and the others do; give "
            "it for all of them"
        )


def _refuse(name: str, rows: Sequence[int], corpus: Corpus, window: np.ndarray) -> None:
    """Refuses rows that cannot be units of one track."""
    sides = {bool(corpus.members[i]): corpus.ids[i] for i in rows}
    if len(sides) > 1:
        raise InputError(
            f"track {name!r}: its unit {sides[True]!r} is of a member and {sides[False]!r} of a "
            "decoy; a track was trained on or not, so give all its units one side"
        )
    captions = np.bincount(window[rows])
    if np.ptp(captions):
        raise InputError(
            f"track {name!r}: its windows have {captions.tolist()} captions; give every window of "
            "it each of its captions"
        )
    first: dict[int, int] = {}
    for i in rows:
        one = first.setdefault(int(window[i]), i)
        if i != one and not _same_latent(corpus, one, i):
            raise InputError(
                f"{corpus.ids[one]!r} and {corpus.ids[i]!r} are captions of one window of track "
                f"{name!r} by their metadata, but their latents differ; give a {_START} to each "
                f"window, or rename the key {_TRACK!r} if it means something else"
            )
