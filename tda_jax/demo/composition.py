"""Music as notes: what a work is, before it is played.

A work has four bars that go round: chords from a progression of scale degrees, a melody that
states a motif, repeats it on the next chord, answers it and returns, a bass line and a drum
pattern. Six invented artists differ in tempo, metre, mode, progressions, instruments and patterns;
their works differ in key, progression and motif.

Times are in beats (quarters), pitches in MIDI numbers (69 is 440 Hz), scale degrees from 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tda_jax.errors import InputError
from tda_jax.named_draws import generator

BARS = 4  # after which a work begins again
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
}
MAJOR = ("major", "mixolydian")
# Rhythms of a motif by how many notes a beat has: lengths in beats, which add up to a bar.
_RHYTHMS = {
    (4, "busy"): ((0.5,) * 6 + (1,), (0.5, 0.25, 0.25, 0.5, 0.5) * 2, (0.75, 0.25, 0.5, 0.5) * 2),
    (4, "sparse"): ((1.5, 0.5, 2), (1, 1, 2), (2, 1, 1), (3, 1)),
    (3, "busy"): ((0.5,) * 6, (1, 0.5, 0.5, 0.5, 0.5), (0.75, 0.25, 0.5, 0.5, 0.5, 0.5)),
    (3, "sparse"): ((2, 1), (1.5, 0.5, 1), (1, 2)),
}
_CHORD_RHYTHMS = {  # (start, length, which notes of the chord) within a bar of four
    "held": ((0, 4, (0, 1, 2)),),
    "pulse": tuple((beat, 0.9, (0, 1, 2)) for beat in range(4)),
    "offbeat": tuple((beat + 0.5, 0.4, (0, 1, 2)) for beat in range(4)),
    "arpeggio": tuple((i / 2, 0.9, ((0, 1, 2, 1)[i % 4],)) for i in range(8)),
    "broken": tuple((i, 1.5, ((0,), (1, 2))[i > 0]) for i in range(4)),
}
_BASS_LINES = {  # (start, length, step above the root in scale degrees)
    "roots": ((0, 4, 0),),
    "fifths": ((0, 1.8, 0), (2, 1.8, 4)),
    "octaves": tuple((i / 2, 0.45, 7 * (i % 2)) for i in range(8)),
    "walking": ((0, 0.95, 0), (1, 0.95, 2), (2, 0.95, 4), (3, 0.95, 2)),
    "dotted": ((0, 1.4, 0), (1.5, 1.4, 0), (3, 0.9, 4)),
}
DRUMS = ("kick", "snare", "hat")
_BEATS = {  # by drum, sixteenths at which it is struck within a bar of four
    "rock": ((0, 8, 10), (4, 12), tuple(range(0, 16, 2))),
    "house": ((0, 4, 8, 12), (4, 12), (2, 6, 10, 14)),
    "brushes": ((0,), (6, 12), tuple(range(0, 16, 4))),
    "train": ((0, 8), tuple(range(2, 16, 4)), tuple(range(16))),
}


class Style(NamedTuple):
    """How an artist's works are made.

    Attributes:
        artist: an invented name.
        tempos: least and most beats a minute.
        metre: beats of a bar, 3 or 4.
        mode: a key of `SCALES`.
        progressions: four scale degrees each, a bar to each; one for each work in turn.
        leads: instruments of melodies, one for each work in turn.
        chords: instruments of chords, likewise.
        bass: instrument of the bass.
        rhythms: patterns of chords, bass line and drums.
        motions: whether the melodies of works are "busy" or "sparse", in turn.
        drummed: whether works have drums, in turn.
    """

    artist: str
    tempos: tuple[int, int]
    metre: int
    mode: str
    progressions: tuple[tuple[int, ...], ...]
    leads: tuple[str, ...]
    chords: tuple[str, ...]
    bass: str
    rhythms: tuple[str, str, str]
    motions: tuple[str, ...]
    drummed: tuple[bool, ...]


class Note(NamedTuple):
    """A note: start and length in beats, pitch in MIDI, loudness in 0 .. 1."""

    start: float
    length: float
    pitch: int
    loudness: float


class Hit(NamedTuple):
    """A stroke of a drum: start in beats, one of `DRUMS`, loudness in 0 .. 1."""

    start: float
    drum: str
    loudness: float


class Work(NamedTuple):
    """A work, which goes round after `BARS` bars.

    Attributes:
        name: such as "work07"; known to evaluation only.
        artist: of its style.
        tempo: beats a minute.
        metre: beats of a bar.
        mode: a key of `SCALES`.
        motion: "busy" or "sparse", of its melody.
        lead: instrument of the melody.
        chords: instrument of the chords.
        bass: instrument of the bass.
        melody: its notes, by start; likewise the others.
        harmony: notes of the chords.
        low: notes of the bass.
        hits: of the drums; none where there are no drums.
    """

    name: str
    artist: str
    tempo: float
    metre: int
    mode: str
    motion: str
    lead: str
    chords: str
    bass: str
    melody: tuple[Note, ...]
    harmony: tuple[Note, ...]
    low: tuple[Note, ...]
    hits: tuple[Hit, ...]

    @property
    def beats(self) -> int:
        """After how many beats it goes round."""
        return BARS * self.metre


def compose(seed: int, number: int, style: Style, turn: int) -> Work:
    """Writes a work: a function of its arguments.

    Args:
        seed: of every random part.
        number: of the work, which names its draws.
        style: its artist's.
        turn: which of the artist's works it is, from 0; no two share key and progression.

    Raises:
        InputError: `number` or `turn` is below 0.
    """
    if number < 0 or turn < 0:
        raise InputError(f"work {number}, turn {turn}; give numbers of 0 or more")
    name = f"work{number:02d}"
    draws = generator(seed, f"demo {name}")
    tonic = 48 + int((7 * turn + 5 * draws.integers(0, 2) + draws.integers(0, 3)) % 12)
    degrees = style.progressions[turn % len(style.progressions)]
    motion = style.motions[turn % len(style.motions)]
    key = (tonic, SCALES[style.mode])
    pattern, line, beat = style.rhythms
    drummed = style.drummed[turn % len(style.drummed)]
    return Work(
        name=name,
        artist=style.artist,
        tempo=float(draws.integers(style.tempos[0], style.tempos[1] + 1)),
        metre=style.metre,
        mode=style.mode,
        motion=motion,
        lead=style.leads[turn % len(style.leads)],
        chords=style.chords[turn % len(style.chords)],
        bass=style.bass,
        melody=_melody(draws, key, degrees, style.metre, motion),
        harmony=_harmony(key, degrees, style.metre, pattern),
        low=_low(key, degrees, style.metre, line),
        hits=_hits(style.metre, beat) if drummed else (),
    )


def pitch_of(tonic: int, scale: Sequence[int], degree: int) -> int:
    """The pitch of a scale degree, which may be below 0 or above an octave."""
    return tonic + 12 * (degree // len(scale)) + scale[degree % len(scale)]


def _melody(
    draws: np.random.Generator,
    key: tuple[int, Sequence[int]],
    degrees: Sequence[int],
    metre: int,
    motion: str,
) -> tuple[Note, ...]:
    """A motif on the first chord, again on the second, an answer, the motif with an ending."""
    rhythms = _RHYTHMS[metre, motion]
    chosen = draws.permutation(len(rhythms))
    motif, answer = rhythms[chosen[0]], rhythms[chosen[1]]
    contour, reply = _contour(draws, len(motif)), _contour(draws, len(answer))
    bars = [(motif, contour), (motif, contour), (answer, reply), (motif, contour)]
    notes = []
    for bar, ((lengths, steps), root) in enumerate(zip(bars, degrees, strict=True)):
        start = float(bar * metre)
        for i, (length, step) in enumerate(zip(lengths, steps, strict=True)):
            step = _within(step)
            if start % metre in (0, 2):  # where the metre leans, a note of the chord
                step = (0, 0, 2, 2, 4, 4, 7, 7, 9)[step]
            degree = root + step
            if bar == BARS - 1 and i == len(lengths) - 1:
                degree = 7  # it ends on the tonic
            loud = 0.95 if start % 1 == 0 else 0.8
            notes.append(Note(start, 0.95 * length, 12 + pitch_of(*key, degree), loud))
            start += length
    return tuple(notes)


def _contour(draws: np.random.Generator, count: int) -> list[int]:
    """Steps above the root: a walk by seconds and thirds with a leap at times."""
    walk = [int(draws.choice([2, 4, 7]))]
    while len(walk) < count:
        walk.append(walk[-1] + int(draws.choice([-2, -1, -1, 1, 1, 2, 3, -4])))
    return walk


def _within(step: int) -> int:
    """A step above the root, by octaves into 0 .. 8, where a melody lies above its chord."""
    return step if 0 <= step <= 8 else step % 7


def _harmony(
    key: tuple[int, Sequence[int]], degrees: Sequence[int], metre: int, pattern: str
) -> tuple[Note, ...]:
    notes = []
    for bar, root in enumerate(degrees):
        chord = sorted(_folded(pitch_of(*key, root + step)) for step in (0, 2, 4))
        for start, length, which in _CHORD_RHYTHMS[pattern]:
            if start < metre:
                lasts = min(length, metre - start)
                loud = 0.75 if start == 0 else 0.6
                notes += [Note(bar * metre + start, lasts, chord[i], loud) for i in which]
    return tuple(notes)


def _low(
    key: tuple[int, Sequence[int]], degrees: Sequence[int], metre: int, line: str
) -> tuple[Note, ...]:
    notes = []
    for bar, root in enumerate(degrees):
        for start, length, step in _BASS_LINES[line]:
            if start < metre:
                pitch = pitch_of(*key, root % 7 - (7 if root % 7 > 4 else 0) + step) - 12
                notes.append(Note(bar * metre + start, min(length, metre - start), pitch, 0.9))
    return tuple(notes)


def _hits(metre: int, beat: str) -> tuple[Hit, ...]:
    hits = []
    for bar in range(BARS):
        for drum, places in zip(DRUMS, _BEATS[beat], strict=True):
            for place in places:
                if place / 4 < metre:
                    loud = 1.0 if place % 4 == 0 else 0.7
                    hits.append(Hit(bar * metre + place / 4, drum, loud))
    return tuple(sorted(hits))


def _folded(pitch: int) -> int:
    """By octaves into 52 .. 63, where chords leave room for melody and bass."""
    return 52 + (pitch - 52) % 12
