"""From encoded windows and captions to the rows of a dataset, a chunk of files at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tda_jax.corpus.chunking import Chunk
from tda_jax.corpus.dataset import Row
from tda_jax.corpus.encoding import Encoded, read_chunk
from tda_jax.corpus.folder import Track
from tda_jax.models.denoiser import Condition
from tda_jax.models.vae_config import VAEConfig

Conditions = Callable[[Sequence[str]], Condition]
"""conditions(captions) -> the model's condition for each, with a leading axis; of each alone."""


class Window(NamedTuple):
    """A row of the dataset to come, without its arrays.

    Attributes:
        id: of the window; the track's own where it has one window.
        track: that it is of.
        frames: valid latent frames.
    """

    id: str
    track: Track
    frames: int


class Packed(NamedTuple):
    """What the rows of a corpus will be, in the order of its tracks and of their windows.

    Attributes:
        windows: of each row.
        shape: of a latent.
        skipped: id -> why nothing of that track is there.
    """

    windows: list[Window]
    shape: tuple[int, ...]
    skipped: dict[str, str]


def outline(chunks: Iterable[Chunk], tracks: Sequence[Track]) -> Packed:
    """Which rows there will be.

    Args:
        chunks: from `encoding.encode`, of the files of `tracks`.
        tracks: what the folder says of them.
    """
    known = {track.id: track for track in tracks}
    windows, skipped, shape = [], {}, ()
    for chunk in map(read_chunk, chunks):
        skipped |= chunk.skipped
        shape = chunk.mean.shape[1:]
        windows += [
            Window(name, known[track], int(chunk.frames[i])) for i, name, track in _named(chunk)
        ]
    return Packed(windows, shape, skipped)


def rows(
    chunks: Iterable[Chunk],
    tracks: Sequence[Track],
    vae: VAEConfig,
    conditions: Conditions,
    member: bool,
) -> Iterator[Row]:
    """Rows in the network's scaling, each with the conditions of its track's captions.

    Args:
        chunks: from `encoding.encode`, of the files of `tracks`.
        tracks: what the folder says of them.
        vae: its scaling: a latent is scaling_factor · (z - shift_factor).
        conditions: of captions; called once for a chunk that has such rows.
        member: which rows: of tracks that the model was trained on, or of the others.
    """
    known = {track.id: track for track in tracks}
    scale, shift = np.float32(vae.scaling_factor), np.float32(vae.shift_factor)
    for chunk in map(read_chunk, chunks):
        wanted = [x for x in _named(chunk) if known[x[2]].member == member]
        texts = sorted({text for *_, track in wanted for text in known[track].captions})
        place = {text: i for i, text in enumerate(texts)}
        made = conditions(texts) if texts else None
        for i, name, of_track in wanted:
            track = known[of_track]
            which = np.array([place[text] for text in track.captions])
            yield Row(
                name,
                track.id,
                member,
                float(chunk.start[i]),
                scale * (chunk.mean[i] - shift),
                scale * chunk.std[i],
                chunk.log_mel[i],
                int(chunk.frames[i]),
                track.captions,
                jax.tree.map(lambda x, which=which: x[which], made),
                _carried(track),
            )


def _named(chunk: Encoded) -> list[tuple[int, str, str]]:
    """The windows of a chunk, which holds all of a file: position, id, and id of the track."""
    several = {name for name in chunk.id if chunk.id.count(name) > 1}
    return [
        (i, f"{name} at {float(chunk.start[i]):g} s" if name in several else name, name)
        for i, name in enumerate(chunk.id)
    ]


def _carried(track: Track) -> Mapping[str, Any]:
    named = {"title": track.title, "artist": track.artist, "file_name": track.file_name}
    return {**track.carried, **{k: v for k, v in named.items() if v is not None}}
