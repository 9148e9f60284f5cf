"""Timbres: one note of an instrument, or one stroke of a drum, as a wave.

Sums of harmonics (organ, bowed strings, flute, synthesiser), frequency modulation after Chowning
(1973; electric piano, bells), strings plucked after Karplus and Strong (1983) and drums of noise
and falling tones. A note is a function of (instrument, pitch, length, rate), noise included, and
has its release after its length.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Float64

from tda_jax.demo.composition import DRUMS
from tda_jax.errors import InputError
from tda_jax.named_draws import generator

_HIGHEST = 7500.0  # Hz: harmonics end here, so that every sample rate of the corpus keeps them
_RELEASE = 0.12  # seconds after a note's length in which it dies away
_DRUM_SECONDS = {"kick": 0.3, "snare": 0.22, "hat": 0.07}


def tone(instrument: str, pitch: int, seconds: float, rate: int) -> Float32[np.ndarray, " samples"]:
    """One note.

    Args:
        instrument: a key of `FAMILIES`.
        pitch: in MIDI numbers.
        seconds: until it is let go; the release comes after.
        rate: samples a second.

    Returns:
        (round((seconds + 0.12) · rate),), about -1 .. 1.

    Raises:
        InputError: there is no such instrument.
    """
    if instrument not in _VOICES:
        raise InputError(f"instrument {instrument!r}; choose one of {sorted(_VOICES)}")
    hz = 440.0 * 2 ** ((pitch - 69) / 12)
    t = np.arange(round((seconds + _RELEASE) * rate)) / rate
    wave = _VOICES[instrument](hz, t, rate)
    gate = np.clip((seconds + _RELEASE - t) / _RELEASE, 0.0, 1.0) ** 2
    return (wave * gate).astype(np.float32)


def stroke(drum: str, rate: int) -> Float32[np.ndarray, " samples"]:
    """One stroke of a drum of `DRUMS`, about -1 .. 1.

    Raises:
        InputError: there is no such drum.
    """
    if drum not in DRUMS:
        raise InputError(f"drum {drum!r}; choose one of {list(DRUMS)}")
    t = np.arange(round(_DRUM_SECONDS[drum] * rate)) / rate
    noise = generator(0, f"demo {drum} {rate}").standard_normal(len(t))
    if drum == "kick":
        phase = 48 * t + 4.0 * (1 - np.exp(-t * 30))  # falls from 168 Hz to 48 Hz
        wave = np.sin(2 * np.pi * phase) * np.exp(-t * 12)
    elif drum == "snare":
        body = np.sin(2 * np.pi * 190 * t) * np.exp(-t * 25)
        wave = 0.4 * body + 0.3 * np.diff(noise, prepend=0.0) * np.exp(-t * 20)
    else:
        wave = 0.2 * np.diff(noise, n=2, prepend=[0.0, 0.0]) * np.exp(-t * 60)
    return wave.astype(np.float32)


def _harmonics(
    hz: float, t: np.ndarray, weights: Sequence[float], dulling: float = 0.0, vibrato: float = 0.0
) -> Float64[np.ndarray, " samples"]:
    """A sum of harmonics; number k dies away at (k - 1) · dulling a second.

    The sum is a polynomial in z = exp(i · phase - dulling · t), so that one sine and one cosine
    serve all harmonics. `vibrato` is the swing of the frequency as a part of it, at 5.5 Hz.
    """
    kept = [w for k, w in enumerate(weights, 1) if k * hz < _HIGHEST] or [weights[0]]
    swing = vibrato * hz / 5.5 * np.minimum(t / 0.4, 1.0)
    phase = 2 * np.pi * hz * t + swing * np.sin(2 * np.pi * 5.5 * t)
    turn = np.exp(1j * phase)
    z = turn * np.exp(-dulling * t) if dulling else turn
    total = np.full(len(t), kept[-1], complex)
    for weight in kept[-2::-1]:
        total *= z
        total += weight
    return (total * turn).imag / sum(kept)


def _fm(
    hz: float, t: np.ndarray, ratio: float, index: float, fading: float
) -> Float64[np.ndarray, " samples"]:
    """A sine whose phase another sine swings, ever less."""
    swing = index * np.exp(-fading * t) * np.sin(2 * np.pi * ratio * hz * t)
    return np.sin(2 * np.pi * hz * t + swing)


def _plucked(
    hz: float, t: np.ndarray, rate: int, softness: int, sustain: float
) -> Float64[np.ndarray, " samples"]:
    """A plucked string: noise that goes round a loop and is smoothed each time.

    The loop lasts `whole` + 1/2 + `part` samples, so that the string is in tune: one filter delays
    by `part`, and a mean of two neighbours by 1/2. A loop's samples depend on the one before
    alone, and are computed together.

    Args:
        hz: its pitch.
        t: times of the samples.
        rate: samples a second.
        softness: samples over which the first noise is smoothed: how dull the pluck is.
        sustain: seconds in which the loop's own loss takes the string to 1/1000.
    """
    loop = rate / hz - 0.5
    whole, part = int(loop), loop - int(loop)
    loss = 10 ** (-3 / (sustain * hz))
    taps = loss * np.convolve([1 - part, part], [0.5, 0.5])
    noise = generator(0, f"demo string {whole}").uniform(-1, 1, whole + 2)
    noise = np.convolve(noise, np.full(softness, 1 / softness), "same")
    wave = np.zeros(whole + 2 + len(t) + whole)
    wave[: whole + 2] = (noise - noise.mean()) / np.abs(noise).max()
    for at in range(whole + 2, whole + 2 + len(t), whole):
        last = slice(at - whole, at)
        wave[at : at + whole] = taps[0] * wave[last]
        wave[at : at + whole] += taps[1] * wave[at - whole - 1 : at - 1]
        wave[at : at + whole] += taps[2] * wave[at - whole - 2 : at - 2]
    return wave[whole + 2 :][: len(t)]


def _attack(t: np.ndarray, seconds: float) -> np.ndarray:
    return np.minimum(t / seconds, 1.0)


def _epiano(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    bark = 0.25 * _fm(hz, t, 7.0, 0.8, 12.0) * np.exp(-6 * t)
    return (0.8 * _fm(hz, t, 1.0, 1.2, 2.5) + bark) * np.exp(-1.3 * t) * _attack(t, 0.004)


def _organ(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    wave = _harmonics(hz, t, (1.0, 0.8, 0.6, 0.5, 0.0, 0.35, 0.0, 0.3), vibrato=0.003)
    return 1.3 * wave * _attack(t, 0.015)


def _violin(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    weights = [1.0, 0.8, 0.75, 0.5, 0.4, 0.4, 0.25, 0.2, 0.15, 0.12, 0.1, 0.08]
    return 1.7 * _harmonics(hz, t, weights, vibrato=0.007) * _attack(t, 0.07)


def _strings(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    weights = [1 / k for k in range(1, 13)]
    both = _harmonics(0.997 * hz, t, weights) + _harmonics(1.003 * hz, t, weights, vibrato=0.004)
    return 0.8 * both * _attack(t, 0.18)


def _flute(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    breath = generator(0, f"demo breath {len(t)}").standard_normal(len(t))
    breath = np.convolve(breath, [0.25, 0.5, 0.25], "same")
    wave = _harmonics(hz, t, (1.0, 0.35, 0.12, 0.04), vibrato=0.004)
    return (1.1 * wave + 0.02 * breath) * _attack(t, 0.06)


def _synth(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    weights = [1 / k if k % 2 else 0.15 / k for k in range(1, 16)]
    both = _harmonics(0.998 * hz, t, weights, 0.9) + _harmonics(1.002 * hz, t, weights, 0.9)
    return 0.7 * both * _attack(t, 0.008)


def _synthbass(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    return 1.6 * _harmonics(hz, t, [1 / k for k in range(1, 19)], 1.6) * np.exp(-1.5 * t)


def _sub(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    return 1.1 * _harmonics(hz, t, (1.0, 0.3, 0.1)) * _attack(t, 0.02)


def _bells(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    high = 0.4 * np.sin(2 * np.pi * 2.76 * hz * t) * np.exp(-7 * t)
    return (0.7 * _fm(hz, t, 3.5, 1.6, 3.0) + high) * np.exp(-2.2 * t) * _attack(t, 0.002)


def _guitar(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    return 1.1 * _plucked(hz, t, rate, 4, 3.0)


def _harp(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    return 1.3 * _plucked(hz, t, rate, 14, 5.0)


def _pluck(hz: float, t: np.ndarray, rate: int) -> np.ndarray:
    return 1.4 * _plucked(hz, t, rate, 24, 4.0)


_VOICES: dict[str, Callable[[float, np.ndarray, int], np.ndarray]] = {
    "epiano": _epiano,
    "organ": _organ,
    "violin": _violin,
    "strings": _strings,
    "flute": _flute,
    "synth": _synth,
    "bells": _bells,
    "guitar": _guitar,
    "harp": _harp,
    "pluck": _pluck,
    "sub": _sub,
    "synthbass": _synthbass,
}
# What a listener would call them, which is what captions say.
FAMILIES = {
    "epiano": "keyboard",
    "organ": "keyboard",
    "violin": "bowed strings",
    "strings": "bowed strings",
    "flute": "flute",
    "synth": "synthesiser",
    "bells": "bells",
    "guitar": "plucked strings",
    "harp": "plucked strings",
    "pluck": "bass",
    "sub": "bass",
    "synthbass": "bass",
}
