"""Spectrograms as small pictures: log-mels in one ink, on one scale for all of a report."""

from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float32, UInt8
from PIL import Image

from tda_jax.artifact import whole_file
from tda_jax.audio.mel import MelSettings, log_mel, prepare

QUIETEST, LOUDEST = -7.0, 0.5
"""Log-mels that have no ink and full ink. Recordings are scaled to one peak before."""

_COLUMNS = 720  # of a picture at most
_SHADES = 24  # few enough for small files, and more than an eye tells apart
_PAPER, _INK = np.array([255, 255, 255]), np.array([16, 28, 32])


def draw(path: Path, wave: Float32[np.ndarray, " samples"], rate: int) -> None:
    """Draws a spectrogram as PNG: time from left to right, pitch from the bottom up.

    Args:
        path: the file, written in place of what was there.
        wave: mono.
        rate: of it.

    Raises:
        InputError: the wave is empty or not finite; the disk refuses.
    """
    steps = np.linspace(0, 1, _SHADES)[:, None]
    palette = np.round((1 - steps) * _PAPER + steps * _INK).astype(np.uint8)
    picture = Image.fromarray(ink(wave, rate))
    picture.putpalette(palette.reshape(-1).tolist())
    with whole_file(path) as part:
        picture.save(part, format="PNG", optimize=True)


def ink(wave: Float32[np.ndarray, " samples"], rate: int) -> UInt8[np.ndarray, "mels columns"]:
    """How much ink each point of a picture has, from none to the most, the highest mel first."""
    mel = MelSettings()
    heard = wave if rate == mel.rate else soxr.resample(wave, rate, mel.rate, quality="HQ")
    frames = log_mel(prepare(heard, max(len(heard), mel.n_fft)), mel)
    edges = np.linspace(0, len(frames), min(len(frames), _COLUMNS) + 1).astype(int)
    columns = np.add.reduceat(frames, edges[:-1], axis=0) / np.diff(edges)[:, None]
    level = np.clip((columns - QUIETEST) / (LOUDEST - QUIETEST), 0, 1)
    return np.round(level.T[::-1] * (_SHADES - 1)).astype(np.uint8)
