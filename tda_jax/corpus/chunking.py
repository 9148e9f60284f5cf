"""Which files are encoded together: chunks, named by the contents of their files.

A chunk is looked for before its files are decoded, so all is told by their bytes and headers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tda_jax import fingerprint, machine
from tda_jax.audio import reading
from tda_jax.audio.mel import MelSettings
from tda_jax.columns import Item, Value
from tda_jax.errors import InputError

_HELD = 256 * 2**20  # bytes of the log-mels of a chunk, unless a single file has more


class Cut(NamedTuple):
    """How files are cut into windows; see `reading.windows`.

    Attributes:
        seconds: length of a window. Its mel frames must be a multiple of the VAE's factor.
        hop: seconds from one window to the next; None for windows that follow each other.
        count: at most so many windows of each file, from its start; None for all.
    """

    seconds: float
    hop: float | None = None
    count: int | None = 1


class File(NamedTuple):
    """A file under the id of its track."""

    id: str
    path: Path


class Chunk(NamedTuple):
    """Files that were encoded together, and where; `read_chunk` reads what is there.

    Attributes:
        path: of their artifact.
        made_of: what it was made from.
        ids: of the files in it.
        unread: id -> why a file is none of them.
    """

    path: Path
    made_of: Mapping[str, Any]
    ids: tuple[str, ...]
    unread: Mapping[str, str]


def chunks_of(
    files: Sequence[File],
    folder: Path,
    source: Mapping[str, Any],
    cut: Cut,
    settings: MelSettings,
) -> list[tuple[Chunk, list[File]]]:
    """The chunks that some files make, one or more, each with those files of it that are audio.

    What is no audio goes with the first.
    """
    seen = list(zip(files, _looked_at(files), strict=True))
    unread = {file.id: found for file, found in seen if isinstance(found, str)}
    frames = round(cut.seconds * settings.rate) // settings.hop
    most = max(1, _HELD // (frames * settings.mels * 4))
    groups, windows = [[]], 0
    for file, found in seen:
        if isinstance(found, str):
            continue
        here = _windows_in(found.seconds, cut, most)
        if groups[-1] and windows + here > most:
            groups.append([])
            windows = 0
        groups[-1].append((file, found.print))
        windows += here
    chunks = []
    for i, group in enumerate(groups):
        made_of = {**source, "files": {file.id: known for file, known in group}}
        name = fingerprint.of_text(str(fingerprint.plain(made_of, "made_of")))[:16]
        ids, path = tuple(file.id for file, _ in group), folder / f"{name}.safetensors"
        chunk = Chunk(path, made_of, ids, {} if i else unread)
        chunks.append((chunk, [file for file, _ in group]))
    return chunks


def _windows_in(seconds: float | None, cut: Cut, unknown: int) -> int:
    """How many windows a file may have, by what its header says of its length."""
    step = cut.seconds if cut.hop is None else cut.hop
    whole = unknown if seconds is None else max(1, math.ceil(seconds / step))
    return whole if cut.count is None else min(whole, cut.count)


def prints_of(files: Sequence[File]) -> tuple[dict[str, str], dict[str, str]]:
    """Fingerprints of files by id, and why others have none; what is no audio is not read whole."""
    found = dict(zip((file.id for file in files), _looked_at(files), strict=True))
    reasons = {name: seen for name, seen in found.items() if isinstance(seen, str)}
    return {name: seen.print for name, seen in found.items() if name not in reasons}, reasons


class _Seen(NamedTuple):
    """What is known of a file before it is decoded: its fingerprint, and its header's length."""

    print: str
    seconds: float | None


def _looked_at(files: Sequence[File]) -> list[_Seen | str]:
    """What is known of each file, or why it is none that can be read."""

    def look(file: File) -> _Seen | str:
        try:
            header = reading.info(file.path)
            seconds = None if header.frames is None else header.frames / header.rate
            return _Seen(fingerprint.of_files([file.path]), seconds)
        except InputError as error:
            return str(error)

    return by_threads(look, files)


def by_threads(read: Callable[[Item], Value], items: Sequence[Item]) -> list[Value]:
    """In order; decoding, resampling and transforms leave Python to others while they run."""
    with ThreadPoolExecutor(machine.cores()) as threads:
        return list(threads.map(read, items))
