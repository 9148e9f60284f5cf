"""Works played: from notes to a stereo wave."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from tda_jax.demo.composition import Work
from tda_jax.demo.instruments import stroke, tone
from tda_jax.errors import InputError
from tda_jax.named_draws import generator

RATE = 32000  # samples a second of what is rendered
_GAINS = {"melody": 0.5, "harmony": 0.2, "low": 0.45, "kick": 0.8, "snare": 0.35, "hat": 0.18}
_PANS = {"melody": 0.15, "harmony": -0.35, "low": 0.0, "kick": 0.0, "snare": 0.1, "hat": 0.4}
_LATE, _UNEVEN = 0.006, 0.08  # of hands: seconds, and a part of loudness; standard deviations
_FADE_IN, _FADE_OUT = 0.004, 0.25  # seconds
_ROOM, _ROOM_SECONDS, _ROOM_DECAY = 0.12, 0.45, 14.0
_WIDTH = 230  # samples by which the room's sound is later at the right


class Event(NamedTuple):
    """One note or stroke in time.

    Attributes:
        part: "melody", "harmony", "low" or a drum.
        start: seconds from the work's beginning.
        seconds: how long it is held; 0 for a drum.
        pitch: in MIDI numbers; 0 for a drum.
        loudness: 0 .. about 1.2.
    """

    part: str
    start: float
    seconds: float
    pitch: int
    loudness: float


def events(work: Work, tempo: float, end: float, seed: int, hands: str) -> Iterator[Event]:
    """The notes of a work, round after round, that begin before `end`.

    Args:
        work: what is played.
        tempo: beats a minute.
        end: seconds.
        seed: of the unevenness of hands.
        hands: names the performance: the same name plays the same, as far as both go.

    Yields:
        events part by part; no start is below 0.
    """
    beat = 60.0 / tempo
    parts = {"melody": work.melody, "harmony": work.harmony, "low": work.low, "drums": work.hits}
    for part, notes in parts.items():
        draws = generator(seed, f"demo {work.name} {hands} {part}")
        rounds = range(int(end / (work.beats * beat)) + 1 if notes else 0)
        for note in (shifted for r in rounds for shifted in _round(notes, r * work.beats)):
            late, uneven = draws.standard_normal(2)
            if note.start * beat >= end:
                break
            start = max(0.0, note.start * beat + _LATE * late)
            loud = note.loudness * max(0.2, 1 + _UNEVEN * uneven)
            if part == "drums":
                yield Event(note.drum, start, 0.0, 0, loud)
            else:
                yield Event(part, start, note.length * beat, note.pitch, loud)


def render(
    work: Work, tempo: float, start: float, seconds: float, seed: int, hands: str
) -> Float32[np.ndarray, "samples 2"]:
    """Plays a part of a work, in stereo at `RATE`.

    Args:
        work: with the instruments and keys that are wanted.
        tempo: beats a minute.
        start: seconds from the beginning; what sounds there from before is heard.
        seconds: how long.
        seed: of the unevenness of hands.
        hands: names the performance, as in `events`.

    Returns:
        (round(seconds · RATE), 2), with a peak of 1, faded in and out at the ends.

    Raises:
        InputError: a length or the tempo is not positive, or the start below 0.
    """
    if seconds <= 0 or tempo <= 0 or start < 0:
        raise InputError(f"tempo = {tempo}, start = {start}, seconds = {seconds}; give more than 0")
    end = start + seconds
    voices = _mixed(work, list(events(work, tempo, end, seed, hands)), end)
    sides = np.zeros((round(end * RATE), 2), np.float32)
    for part, voice in voices.items():
        angle = (1 + _PANS[part]) * np.pi / 4
        sides += voice[:, None] * np.array([np.cos(angle), np.sin(angle)], np.float32)
    sides = _in_a_room(sides)[-round(seconds * RATE) :]
    ends = np.arange(len(sides)) / RATE
    fade = np.minimum(ends / _FADE_IN, 1.0) * np.minimum((seconds - ends) / _FADE_OUT, 1.0)
    sides *= fade[:, None].astype(np.float32)
    return sides / np.abs(sides).max()


def _round(notes: tuple, beats: int) -> Iterator:
    for note in notes:
        yield note._replace(start=note.start + beats)


def _mixed(work: Work, played: list[Event], end: float) -> dict[str, np.ndarray]:
    """A mono wave for each part. Each tone is made once, however often it is played."""
    instruments = {"melody": work.lead, "harmony": work.chords, "low": work.bass}
    length = round(end * RATE)
    voices = {event.part: np.zeros(length, np.float32) for event in played}
    waves: dict[tuple[str, int, float], np.ndarray] = {}
    for event in played:
        key = (event.part, event.pitch, round(event.seconds, 4))
        if key not in waves:
            drum = event.part not in instruments
            waves[key] = (
                stroke(event.part, RATE)
                if drum
                else tone(instruments[event.part], event.pitch, key[2], RATE)
            )
        first = round(event.start * RATE)
        wave = waves[key][: max(0, length - first)]
        voices[event.part][first : first + len(wave)] += _GAINS[event.part] * event.loudness * wave
    return voices


def _in_a_room(sides: np.ndarray) -> np.ndarray:
    """Adds the echo of a small room: noise that dies away, a little later at the right."""
    t = np.arange(round(_ROOM_SECONDS * RATE)) / RATE
    echo = generator(0, "demo room").standard_normal(len(t)) * np.exp(-_ROOM_DECAY * t)
    echo = np.convolve(echo, [0.25, 0.5, 0.25], "same") / np.sqrt(np.sum(echo**2))
    size = -(-(len(sides) + len(t)) // 16384) * 16384  # a length that is quick to transform
    spectrum = np.fft.rfft(sides.mean(axis=1), size) * np.fft.rfft(echo.astype(np.float32), size)
    wet = np.fft.irfft(spectrum, size).astype(np.float32)[: len(sides)]
    later = np.concatenate([np.zeros(_WIDTH, np.float32), wet])[: len(wet)]
    return sides + _ROOM * 4 * np.stack([wet, later], axis=1)
