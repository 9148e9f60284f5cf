"""The demo corpus on disk: a user's folder of audio, and apart from it which files belong together.

    <folder>/*.wav, *.flac, *.ogg, *.mp3     under neutral names
    <folder>/metadata.jsonl                  file_name, id, caption, title, artist, split
    <provenance>                             one JSON object a line, which only evaluation reads

Nothing in the folder tells which files are versions of one work, but how they sound.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from tda_jax.artifact import whole_file
from tda_jax.corpus.folder import METADATA
from tda_jax.demo import ogg
from tda_jax.demo.composition import Work
from tda_jax.demo.design import Item, design, works_of
from tda_jax.demo.rendering import RATE, render
from tda_jax.demo.versions import arranged
from tda_jax.errors import InputError
from tda_jax.named_draws import generator

_SERIAL = 1  # of every Ogg stream, for the same bytes each time
_LOSSY_RATE = 22050  # of the codec that the re-encoded versions went through
_LOSSY = (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"))
_LOSSY_LEVEL = 0.95  # of soundfile's scale, on which 1 is the lowest quality


class Provenance(NamedTuple):
    """Where a file comes from, which only evaluation may know.

    Attributes:
        work: files with the same are versions of one work.
        kind: one of `versions.KINDS`.
        parent: id of the work's original; None for the original itself.
        aspect: under which its caption describes it.
        details: semitones, tempo, lead, chords, start and seconds of the version.
    """

    work: str
    kind: str
    parent: str | None
    aspect: str
    details: Mapping[str, Any]


def make_music(
    folder: Path,
    provenance: Path,
    seed: int = 0,
    works: int = 24,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Makes the corpus, or what is missing of it.

    A file that is there is not made again; `metadata.jsonl` comes last, so that no part of a
    corpus is taken for all of it. Two runs must not write one folder at a time.

    Args:
        folder: for the audio and its metadata.
        provenance: the file that tells what belongs together, outside the folder.
        seed: of everything.
        works: how many; six files each.
        progress: is told how many files are there, and of how many, after each.

    Returns:
        how many files were made in this call.

    Raises:
        InputError: the folder holds files of another corpus; `provenance` lies in it; the number
            of works is out of range; the disk refuses.
    """
    if folder.resolve() in provenance.resolve().parents:
        raise InputError(
            f"{provenance}: lies within {folder}; give a place outside, so that only "
            "evaluation reads it"
        )
    items = design(seed, works)
    _clear(folder, {item.file_name for item in items})
    written = {work.name: work for work in works_of(seed, works)}
    made = 0
    for done, item in enumerate(items, 1):
        path = folder / item.file_name
        if not path.exists():
            wave = performed(item, written[item.work], seed)
            with whole_file(path) as part:
                container, encoding = item.encoding
                soundfile.write(part, wave, item.rate, format=container, subtype=encoding)
                if container == "OGG":
                    part.write_bytes(ogg.with_serial(part.read_bytes(), _SERIAL))
            made += 1
        if progress is not None:
            progress(done, len(items))
    _write_lines(provenance, _provenance_lines(items))
    _write_lines(folder / METADATA, _metadata_lines(items))
    return made


def performed(item: Item, work: Work, seed: int) -> Float32[np.ndarray, "samples channels"]:
    """The samples of a file before they are encoded: (seconds · rate, channels) in -0.9 .. 0.9."""
    version = item.version
    wave = render(
        arranged(work, version), version.tempo, version.start, version.seconds, seed, version.hands
    )
    draws = generator(seed, f"demo {work.name} {version.kind} recording")
    level = draws.uniform(0.5, 0.9)
    if version.kind == "reencoded":
        wave = _through_codec(wave, _LOSSY[draws.integers(0, len(_LOSSY))])
    wave = wave.mean(axis=1, keepdims=True) if item.channels == 1 else wave
    wave = soxr.resample(wave, RATE, item.rate, quality="HQ") if item.rate != RATE else wave
    return (level / np.abs(wave).max() * wave).astype(np.float32)


def read_provenance(path: Path) -> dict[str, Provenance]:
    """The provenance of each file of a corpus, by id.

    Raises:
        InputError: the file cannot be read, or was not written by `make_music`.
    """
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {entry.pop("id"): Provenance(**entry) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read as provenance ({error}); make the demo corpus again"
        ) from error


def _clear(folder: Path, wanted: set[str]) -> None:
    """Takes away what a run left half written, and refuses what is not of this corpus."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give one, or a new place")
    there = sorted(folder.iterdir()) if folder.exists() else []
    halves = [path for path in there if path.name.endswith(".part")]
    strange = [p.name for p in there if p not in halves and p.name not in {METADATA, *wanted}]
    if strange:
        raise InputError(
            f"{folder}: holds {len(strange)} files of another corpus, such as {strange[0]}; give a "
            "new folder, or delete this one"
        )
    for path in halves:
        path.unlink()


def _through_codec(
    wave: Float32[np.ndarray, "samples 2"], codec: tuple[str, str]
) -> Float32[np.ndarray, "samples 2"]:
    """What is left of a wave after a codec of low quality, at half the rate or so."""
    low = soxr.resample(0.8 * wave, RATE, _LOSSY_RATE, quality="HQ")
    container, encoding = codec
    file = io.BytesIO()
    soundfile.write(
        file, low, _LOSSY_RATE, format=container, subtype=encoding, compression_level=_LOSSY_LEVEL
    )
    file.seek(0)
    back, _ = soundfile.read(file, dtype="float32", always_2d=True)
    out = soxr.resample(back, _LOSSY_RATE, RATE, quality="HQ")[: len(wave)]
    return np.pad(out, ((0, len(wave) - len(out)), (0, 0)))


def _metadata_lines(items: Sequence[Item]) -> list[dict[str, Any]]:
    """In the order of the ids, which tells nothing."""
    return [
        {
            "file_name": item.file_name,
            "id": item.id,
            "caption": item.caption,
            "title": item.title,
            "artist": item.artist,
            "split": "held_out" if item.held_out else "train",
        }
        for item in sorted(items, key=lambda item: item.id)
    ]


def _provenance_lines(items: Sequence[Item]) -> list[dict[str, Any]]:
    originals = {item.work: item.id for item in items if item.version.kind == "original"}
    lines = []
    for item in items:
        details = item.version._asdict()
        kind = details.pop("kind")
        parent = None if kind == "original" else originals[item.work]
        found = Provenance(item.work, kind, parent, item.aspect, details)
        lines.append({"id": item.id, **found._asdict()})
    return lines


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    with whole_file(path) as part:
        part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
