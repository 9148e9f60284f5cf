"""Excerpts of recordings for a report: MP3, which every browser plays, and a spectrogram each.

Files are named by what is in the recording and which part it is, so that no name of a track enters
a file name, tracks are shared between queries, and nothing is made twice.
"""

import functools
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float32

from tda_jax import fingerprint
from tda_jax.artifact import whole_file
from tda_jax.audio import reading
from tda_jax.errors import InputError
from tda_jax.report import pictures

AUDIO, PICTURES = "audio", "pictures"
"""Folders of a report."""

_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # that MP3 has
_RATE = 44100  # of recordings at any other
_FULL_SCALE = 0.95  # MP3 overshoots a little, and louder samples would be clipped
_NAMED = re.compile(r"[0-9a-f]{24}\.(mp3|png)")


class Recording(NamedTuple):
    """A file to play.

    Attributes:
        path: of the file.
        name: what a reader may be told of the path.
    """

    path: Path
    name: str


class Player(NamedTuple):
    """An excerpt that can be played.

    Attributes:
        audio: the MP3, relative to the report.
        picture: its spectrogram, likewise.
        start: where it begins in the recording, in seconds.
        seconds: how long it is.
    """

    audio: str
    picture: str
    start: float
    seconds: float


class Missing(NamedTuple):
    """Why there is nothing to play, in words that follow "No player: "."""

    reason: str


def player(
    folder: Path, recording: Recording | Missing, start: float, seconds: float
) -> Player | Missing:
    """Makes the excerpt of a recording, if it is not there, and its picture.

    Args:
        folder: of the report.
        recording: or why there is none.
        start: in seconds.
        seconds: length at most.

    Returns:
        The player, or why the recording cannot be played.

    Raises:
        InputError: the disk refuses.
    """
    if isinstance(recording, Missing):
        return recording
    try:
        name = _name(recording.path, start, seconds)
        audio = folder / AUDIO / f"{name}.mp3"
        picture = folder / PICTURES / f"{name}.png"
        wave = None
        if not (audio.is_file() and picture.is_file()):
            wave = _wave(recording.path, start, seconds)
    except InputError as error:
        return Missing(str(error).replace(str(recording.path), recording.name))
    if wave is not None:
        write_mp3(audio, *wave)
        pictures.draw(picture, *wave)
    made = reading.info(audio)
    length = (made.frames or 0) / made.rate
    return Player(f"{AUDIO}/{audio.name}", f"{PICTURES}/{picture.name}", start, round(length, 2))


def write_mp3(path: Path, wave: Float32[np.ndarray, " samples"], rate: int) -> None:
    """Writes mono MP3, in place of what was there. A wave beyond full scale is made quieter.

    Raises:
        InputError: the disk refuses.
    """
    peak = float(np.abs(wave).max())
    scaled = wave * (_FULL_SCALE / peak) if peak > _FULL_SCALE else wave
    with whole_file(path) as part:
        soundfile.write(part, scaled, rate, format="MP3", subtype="MPEG_LAYER_III")


def remove_others(folder: Path, shown: Collection[Player]) -> None:
    """Removes excerpts and pictures that a report in this folder had before, and has no longer.

    Only files that are named as this module names them.

    Raises:
        InputError: the disk refuses.
    """
    kept = {folder / name for p in shown for name in (p.audio, p.picture)}
    for place in (folder / AUDIO, folder / PICTURES):
        for path in sorted(place.glob("*")):
            if _NAMED.fullmatch(path.name) and path not in kept:
                try:
                    path.unlink()
                except OSError as error:
                    raise InputError(
                        f"{path}: is of an earlier report and cannot be removed ({error}); "
                        "remove it yourself before you pass the report on"
                    ) from error


def _name(path: Path, start: float, seconds: float) -> str:
    parts = fingerprint.of_files([path]), repr(start), repr(seconds), _code()
    return fingerprint.of_text(*parts)[:24]


@functools.cache
def _code() -> str:
    """Of what makes excerpts: another version makes other files."""
    return fingerprint.of_code(__name__)


def _wave(path: Path, start: float, seconds: float) -> tuple[np.ndarray, int]:
    native = reading.info(path).rate
    rate = native if native in _RATES else _RATE
    return reading.read(path, rate, start, seconds), rate
