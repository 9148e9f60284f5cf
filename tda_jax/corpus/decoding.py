"""From latents back to sound: the VAE's log-mels, then the vocoder or Griffin-Lim."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
from jaxtyping import Float

from tda_jax.artifact import whole_file
from tda_jax.audio.mel import MelSettings, to_wave
from tda_jax.models.pretrained import Pipeline

_PEAK = 0.9  # of a file of audio, which is scaled to it


class Decoder(NamedTuple):
    """Compiled once for all latents of a shape.

    Attributes:
        log_mel: (frames, bins, channels), in the network's scaling -> (mel frames, mels).
        wave: a log-mel -> samples, at `rate`.
        rate: of the waves, in samples a second.
    """

    log_mel: Callable[[Float[np.ndarray, "..."]], Float[np.ndarray, "..."]]
    wave: Callable[[Float[np.ndarray, "..."]], Float[np.ndarray, "..."]]
    rate: int


def decoder(pipeline: Pipeline) -> Decoder:
    """The decoder of a pipeline: by its vocoder where it has one, else by Griffin-Lim.

    Args:
        pipeline: with the parts "vae" and, where there is one, "vocoder".
    """
    vae, vocoder = pipeline.components["vae"], pipeline.components.get("vocoder")
    c = vae.module.config
    decode = jax.jit(lambda params, z: vae.module.apply({"params": params}, z, method="decode"))

    def log_mel(latent: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        z = jnp.asarray(latent)[None] / c.scaling_factor + c.shift_factor
        return np.asarray(decode(vae.params, z)[0, ..., 0])

    if vocoder is None:
        return Decoder(log_mel, to_wave, MelSettings().rate)
    speak = jax.jit(lambda params, mel: vocoder.module.apply({"params": params}, mel))

    def wave(mel: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return np.asarray(speak(vocoder.params, mel[None])[0])

    return Decoder(log_mel, wave, vocoder.module.config.sampling_rate)


def write_wave(path: Path, wave: Float[np.ndarray, " samples"], rate: int) -> None:
    """Writes a WAV file scaled to a peak of 0.9, in place of what was there."""
    peak = np.abs(wave).max()
    with whole_file(path) as part:
        soundfile.write(part, wave * (_PEAK / peak if peak > 0 else 1.0), rate, format="WAV")
