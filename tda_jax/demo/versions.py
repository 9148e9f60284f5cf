"""The versions of a work, and what can truly be said of each.

Six kinds, one of each for every work: as it was written, in another key, with other instruments,
at another tempo, a cut from within, and one that has been through a codec of low quality. The cut
and the re-encoded one are of the first one's performance; the others are played anew.
"""

from typing import NamedTuple

import numpy as np

from tda_jax.demo.composition import MAJOR, Work
from tda_jax.demo.instruments import FAMILIES
from tda_jax.errors import InputError
from tda_jax.named_draws import generator

KINDS = ("original", "transposed", "reorchestrated", "tempo", "excerpt", "reencoded")
ASPECTS = ("tempo", "mode", "drums", "motion", "lead", "chords")
SHORT, LONG = (2.0, 4.5), (5.5, 8.0)  # seconds, below and above a window of 5.12
_LEADS = ("flute", "violin", "epiano", "organ", "guitar", "harp", "synth", "bells")
_CHORDS = ("strings", "organ", "epiano", "guitar", "harp", "synth")
_SEMITONES = (-5, -4, -3, -2, 2, 3, 4, 5)
_RATIOS = ((0.8, 0.86), (1.2, 1.28))
_TRIMMED = (0.02, 0.3)  # seconds that a re-encoded version ends before the original
# What captions call the families of instruments.
_MELODY_ON = {
    "keyboard": "a keyboard",
    "bowed strings": "a flute or a violin",
    "flute": "a flute or a violin",
    "synthesiser": "a synthesiser",
    "bells": "bells",
    "plucked strings": "plucked strings",
}
_CHORDS_ON = _MELODY_ON | {"bowed strings": "bowed strings"}
_SLOW, _FAST = 90.0, 119.0  # beats a minute: below is slow, above is fast


class Version(NamedTuple):
    """How a work is played and cut.

    Attributes:
        kind: one of `KINDS`.
        semitones: by which it is higher than the work is written.
        tempo: beats a minute.
        lead: instrument of the melody.
        chords: instrument of the chords.
        start: seconds from the beginning of the performance.
        seconds: how long.
        hands: names the performance.
    """

    kind: str
    semitones: int
    tempo: float
    lead: str
    chords: str
    start: float
    seconds: float
    hands: str


def versions_of(work: Work, seed: int, short: frozenset[str]) -> tuple[Version, ...]:
    """One version of each kind, in the order of `KINDS`.

    Args:
        work: the work.
        seed: of keys, tempos, instruments, places and lengths.
        short: kinds that are shorter than a window. The re-encoded one is of the original's
            recording and ends a little before it, so that equal lengths tell nothing.

    Raises:
        InputError: a kind is not known.
    """
    if strange := short - set(KINDS):
        raise InputError(f"kinds {sorted(strange)}; choose from {list(KINDS)}")
    made = {kind: _version(work, kind, seed, short) for kind in KINDS if kind != "reencoded"}
    original = made["original"]
    trimmed = generator(seed, f"demo {work.name} trimmed").uniform(*_TRIMMED)
    seconds = max(SHORT[0], round(original.seconds - float(trimmed), 2))
    made["reencoded"] = original._replace(kind="reencoded", seconds=seconds)
    return tuple(made[kind] for kind in KINDS)


def arranged(work: Work, version: Version) -> Work:
    """The work with the key and the instruments of a version."""

    def moved(notes: tuple) -> tuple:
        return tuple(note._replace(pitch=note.pitch + version.semitones) for note in notes)

    return work._replace(
        lead=version.lead,
        chords=version.chords,
        melody=moved(work.melody),
        harmony=moved(work.harmony),
        low=moved(work.low),
    )


def caption(work: Work, version: Version, aspect: str) -> str:
    """What can be heard of a version under one aspect.

    Every caption holds for works of several artists, and is the same text for all of them.

    Raises:
        InputError: there is no such aspect.
    """
    if aspect == "tempo":
        if version.tempo < _SLOW:
            return "slow music"
        return "fast music" if version.tempo > _FAST else "music at a walking pace"
    if aspect == "mode":
        return f"music in a {'major' if work.mode in MAJOR else 'minor'} key"
    if aspect == "drums":
        return f"music {'with' if work.hits else 'without'} drums"
    if aspect == "motion":
        many = work.motion == "busy"
        return f"a melody of {'many' if many else 'few'} notes to the bar"
    if aspect == "lead":
        return f"a melody on {_MELODY_ON[FAMILIES[version.lead]]}"
    if aspect == "chords":
        return f"chords on {_CHORDS_ON[FAMILIES[version.chords]]}"
    raise InputError(f"aspect {aspect!r}; choose one of {list(ASPECTS)}")


def _version(work: Work, kind: str, seed: int, short: frozenset[str]) -> Version:
    draws = generator(seed, f"demo {work.name} {kind}")
    seconds = round(float(draws.uniform(*(SHORT if kind in short else LONG))), 2)
    plain = Version(kind, 0, work.tempo, work.lead, work.chords, 0.0, seconds, kind)
    if kind == "transposed":
        return plain._replace(semitones=int(draws.choice(_SEMITONES)))
    if kind == "tempo":
        ratio = draws.uniform(*_RATIOS[draws.integers(0, 2)])
        return plain._replace(tempo=round(work.tempo * float(ratio), 1))
    if kind == "reorchestrated":
        lead = _other(draws, _LEADS, work.lead)
        chords = _other(draws, tuple(name for name in _CHORDS if name != lead), work.chords)
        return plain._replace(lead=lead, chords=chords)
    if kind == "excerpt":
        bar = work.metre * 60 / work.tempo
        start = int(draws.integers(1, 4)) * bar
        return plain._replace(start=start, hands="original")
    return plain


def _other(draws: np.random.Generator, names: tuple[str, ...], than: str) -> str:
    """One of the instruments of another family."""
    return str(draws.choice([name for name in names if FAMILIES[name] != FAMILIES[than]]))
