"""AudioLDM's log-mel spectrogram of a wave, its padding, and a wave back from a log-mel.

The steps and their order are those of AudioLDM's training code (haoheliu/
AudioLDM-training-finetuning, `audioldm_train/utilities/data/dataset.py`: `normalize_wav`, `pad_wav`
and `mel_spectrogram_train`), which AudioLDM 2 and MusicLDM share:

1. Of the part of the recording that is there: subtract the mean, divide by the peak, halve.
2. Zeros after it, up to the length of a window.
3. Reflect (n_fft - hop) / 2 samples at both ends; Hann windows of n_fft samples (periodic), hop
   apart, and no centring: a wave of n samples gives n // hop frames.
4. The magnitudes of their spectra, without the 1e-9 under the root that HiFi-GAN's own code has.
5. Slaney mel filters, each of area 1; the natural logarithm, of at least `FLOOR`.

Sums are in float64 here, which differs by rounding only. Before these steps, that code takes a
random part of a recording, its first channel, and torchaudio's resampler; `tda_jax.audio.reading`
takes consecutive windows, the mean of the channels, and soxr's.
"""

import functools
from typing import NamedTuple

import librosa
import numpy as np
from jaxtyping import Float, Float32

from tda_jax.errors import InputError

FLOOR = 1e-5  # the least mel magnitude; its logarithm stands wherever there is silence
_PEAK, _TINY = 0.5, 1e-8
_INVERSION_STEPS = 60  # multiplicative updates, after which magnitudes hardly change


class MelSettings(NamedTuple):
    """What decides a log-mel. The defaults are AudioLDM's.

    Attributes:
        rate: of the wave, in samples a second.
        n_fft: samples of a frame, which the Hann window spans; even.
        hop: samples from a frame to the next; even.
        mels: how many filters.
        fmin: where the lowest filter begins, in Hz.
        fmax: where the highest filter ends, in Hz; at most rate / 2.
    """

    rate: int = 16000
    n_fft: int = 1024
    hop: int = 160
    mels: int = 64
    fmin: float = 0.0
    fmax: float = 8000.0


def normalise(wave: Float[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
    """Takes the mean off and scales the peak to 0.5, as AudioLDM's training did.

    Args:
        wave: the part of a recording that is there, without padding, in any scale.

    Returns:
        0.5 · x / (max |x| + 1e-8) with x = wave - mean, in -0.5 .. 0.5.

    Raises:
        InputError: the wave is empty or not finite.
    """
    if not len(wave) or not np.isfinite(wave).all():
        raise InputError(f"a wave of {len(wave)} samples, or not finite; give a recording")
    centred = wave.astype(np.float64) - wave.mean(dtype=np.float64)
    return (_PEAK * centred / (np.abs(centred).max() + _TINY)).astype(np.float32)


def prepare(
    wave: Float[np.ndarray, " samples"], window: int
) -> Float32[np.ndarray, " window_samples"]:
    """Normalises a wave, then puts zeros after it up to `window` samples.

    Raises:
        InputError: the wave is empty, not finite, or longer than the window.
    """
    if len(wave) > window:
        raise InputError(
            f"a wave of {len(wave)} samples for a window of {window}; cut it into windows first"
        )
    return np.pad(normalise(wave), (0, window - len(wave)))


def log_mel(
    waves: Float[np.ndarray, "*batch samples"], settings: MelSettings | None = None
) -> Float32[np.ndarray, "*batch frames mels"]:
    """The log-mel of waves, time first.

    Args:
        waves: as `prepare` gives them; more than (n_fft - hop) / 2 samples each.
        settings: by default AudioLDM's.

    Returns:
        (..., samples // hop, mels): the natural logarithm, at least log(`FLOOR`).

    Raises:
        InputError: the waves are too short; the settings do not fit each other.
    """
    settings = settings or MelSettings()
    _refuse(settings)
    edge = (settings.n_fft - settings.hop) // 2
    if waves.shape[-1] <= max(edge, settings.hop - 1):
        raise InputError(
            f"waves of {waves.shape[-1]} samples; the edges alone need {edge + 1}, pad them first"
        )
    rows = [_log_mel(wave, settings) for wave in waves.reshape(-1, waves.shape[-1])]
    frames = waves.shape[-1] // settings.hop
    out = np.stack(rows) if rows else np.empty((0, frames, settings.mels), np.float32)
    return out.reshape(*waves.shape[:-1], frames, settings.mels)


def pooled(mel: Float[np.ndarray, "frames mels"], valid: int) -> Float32[np.ndarray, "2 mels"]:
    """What a log-mel sounds like whatever its length: its mean and spread over time.

    Args:
        mel: of one window.
        valid: frames from the first that see the recording, 1 at least.

    Returns:
        The mean of each mel over the valid frames, and its standard deviation.
    """
    heard = mel[:valid].astype(np.float64)
    return np.stack([heard.mean(axis=0), heard.std(axis=0)]).astype(np.float32)


def valid_frames(samples: int, window: int, settings: MelSettings | None = None) -> int:
    """How many frames of a padded wave see the recording.

    Frame t weighs the samples hop · t - edge + 1 .. hop · t - edge + n_fft - 1 of the wave, with
    edge = (n_fft - hop) / 2: the first weight of a periodic Hann window is 0. It is valid when one
    of them is of the recording, so the valid frames are the first ones, and every later frame is
    log(`FLOOR`) exactly in all its mels.

    Args:
        samples: of the recording, 1 .. window.
        window: samples of the padded wave.
        settings: by default AudioLDM's.

    Raises:
        InputError: `samples` is not in 1 .. window, or the window is less than a frame.
    """
    settings = settings or MelSettings()
    _refuse(settings)
    if not 1 <= samples <= window or window < settings.hop:
        raise InputError(
            f"{samples} samples in a window of {window}; give 1 .. window, and a window of "
            f"{settings.hop} at least"
        )
    reach = samples - 1 + (settings.n_fft - settings.hop) // 2
    return min(window // settings.hop, -(-reach // settings.hop))


def latent_frames(frames: int, factor: int) -> int:
    """How many latent frames see a valid mel frame, where each is made of `factor` of those.

    The reach of a VAE's convolutions beyond its own `factor` frames does not count.

    Raises:
        InputError: `frames` is below 0 or `factor` below 1.
    """
    if frames < 0 or factor < 1:
        raise InputError(f"{frames} frames by a factor of {factor}; give counts")
    return -(-frames // factor)


def to_wave(
    mel: Float[np.ndarray, "frames mels"],
    settings: MelSettings | None = None,
    iterations: int = 32,
    seed: int = 0,
) -> Float32[np.ndarray, " samples"]:
    """A wave whose log-mel is near the given one: a preview where a model has no vocoder.

    Magnitudes that are not negative and that the filters map near exp(mel) come from
    multiplicative updates (Lee and Seung 2001), and phases from Griffin and Lim (1984) with
    momentum (Perraudin et al. 2013). Notes are as exact as the filters are narrow: those of
    AudioLDM are 46 Hz apart below 1000 Hz, so that low notes of a chord may run into each other.

    Args:
        mel: as `log_mel` gives it; at the floor, it is taken for silence.
        settings: of the mel; by default AudioLDM's.
        iterations: of Griffin and Lim.
        seed: of the phases to begin with; the same seed gives the same wave.

    Returns:
        (frames · hop,), of the level of the normalised wave, not clipped.

    Raises:
        InputError: the mel is not finite, has another number of mels, or is less than a window
            long.
    """
    settings = settings or MelSettings()
    _refuse(settings)
    frames, mels = mel.shape
    edge = (settings.n_fft - settings.hop) // 2
    if mels != settings.mels or frames * settings.hop < settings.n_fft:
        raise InputError(
            f"a log-mel of {frames} frames and {mels} mels; give {settings.mels} mels and "
            f"{-(-settings.n_fft // settings.hop)} frames at least"
        )
    if not np.isfinite(mel).all():
        raise InputError("a log-mel that is not finite; give numbers")
    wave = librosa.griffinlim(
        _magnitudes(mel, settings),
        n_iter=iterations,
        hop_length=settings.hop,
        win_length=settings.n_fft,
        n_fft=settings.n_fft,
        window=_hann(settings.n_fft),
        center=False,
        random_state=seed,
    )
    return wave[edge : edge + frames * settings.hop].astype(np.float32)


def _log_mel(wave: np.ndarray, settings: MelSettings) -> Float32[np.ndarray, "frames mels"]:
    edge = (settings.n_fft - settings.hop) // 2
    padded = np.pad(wave.astype(np.float64), edge, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, settings.n_fft)[:: settings.hop]
    magnitudes = np.abs(np.fft.rfft(frames * _hann(settings.n_fft)))
    mels = magnitudes @ _filters(settings).T
    return np.log(np.maximum(mels, FLOOR)).astype(np.float32)


def _magnitudes(mel: np.ndarray, settings: MelSettings) -> Float32[np.ndarray, "bins frames"]:
    filters = _filters(settings)
    wanted = np.exp(mel.T.astype(np.float64))
    wanted[wanted <= FLOOR * 1.001] = 0.0
    per_bin = filters.sum(axis=1, keepdims=True)
    spread = filters.T @ (wanted / per_bin**2)  # a start that is above 0 where it may be
    seen = filters.T @ wanted
    for _ in range(_INVERSION_STEPS):
        spread *= seen / (filters.T @ (filters @ spread) + 1e-12)
    return spread.astype(np.float32)


def _refuse(settings: MelSettings) -> None:
    rate, n_fft, hop, mels, fmin, fmax = settings
    if min(rate, n_fft, hop, mels) < 1 or n_fft % 2 or hop % 2 or hop > n_fft:
        raise InputError(
            f"{settings}: give counts above 0, with n_fft and hop even and hop at most n_fft"
        )
    if not 0 <= fmin < fmax <= rate / 2:
        raise InputError(f"{settings}: give 0 <= fmin < fmax <= rate / 2 = {rate / 2}")


def _hann(size: int) -> Float[np.ndarray, " size"]:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


@functools.cache
def _filters(settings: MelSettings) -> Float[np.ndarray, "mels bins"]:
    """The filters in float32's values, as librosa gives them to AudioLDM."""
    rate, n_fft, _, mels, fmin, fmax = settings
    basis = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=mels, fmin=fmin, fmax=fmax)
    filters = basis.astype(np.float64)
    filters.flags.writeable = False
    return filters
