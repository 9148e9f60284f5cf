import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.audio.mel import (
    FLOOR,
    MelSettings,
    latent_frames,
    log_mel,
    normalise,
    prepare,
    to_wave,
    valid_frames,
)
from tda_jax.errors import InputError

SILENT = np.float32(np.log(FLOOR))
SMALL = MelSettings(rate=2000, n_fft=64, hop=16, mels=10, fmin=50.0, fmax=900.0)


def wave(samples, seed=0):
    """Two tones and noise that grow and fade, so that loud and soft frames are there."""
    t = np.arange(samples) / 16000
    tones = np.sin(2 * np.pi * 440 * t) + 0.3 * np.sin(2 * np.pi * 2793 * t)
    noise = 0.05 * np.random.default_rng(seed).standard_normal(samples)
    return ((tones + noise) * np.exp(-3 * (t - 0.1) ** 2)).astype(np.float32)


def slaney_mel(hz):
    """Slaney's scale: linear to 1000 Hz at 15 mels, then 27 mels to each factor of 6.4."""
    if hz < 1000:
        return 3 * hz / 200
    return 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def slaney_hz(mel):
    return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def slaney_filter(number, hz, s):
    """One triangle over frequencies, with 1 as the area over Hz."""
    marks = np.linspace(slaney_mel(s.fmin), slaney_mel(s.fmax), s.mels + 2)
    left, top, right = (slaney_hz(m) for m in marks[number : number + 3])
    up, down = (hz - left) / (top - left), (right - hz) / (right - top)
    return max(0.0, min(up, down)) * 2 / (right - left)


def by_definition(x, s):
    """The log-mel from sums written out: a matrix of cosines and sines, reflection by index."""
    x = x.astype(np.float64)
    edge, n = (s.n_fft - s.hop) // 2, len(x)
    places = [abs(i) if i < n else 2 * (n - 1) - i for i in range(-edge, n + edge)]
    padded = x[places]
    angle = 2 * np.pi * np.outer(np.arange(s.n_fft // 2 + 1), np.arange(s.n_fft)) / s.n_fft
    hann = np.sin(np.pi * np.arange(s.n_fft) / s.n_fft) ** 2
    hz = np.arange(s.n_fft // 2 + 1) * s.rate / s.n_fft
    filters = np.array([[slaney_filter(m, f, s) for f in hz] for m in range(s.mels)])
    rows = []
    for start in range(0, len(padded) - s.n_fft + 1, s.hop):
        frame = padded[start : start + s.n_fft] * hann
        size = np.hypot(np.cos(angle) @ frame, np.sin(angle) @ frame)
        rows.append(np.log(np.clip(filters @ size, FLOOR, None)))
    return np.array(rows)


@pytest.mark.parametrize("samples", [1600, 1601, 1759])
def test_it_is_what_the_definition_gives(samples):
    x = prepare(wave(samples), samples)
    got = log_mel(x)
    assert got.dtype == np.float32
    assert got.shape == (samples // 160, 64)
    # Filters are float32 numbers, as librosa gives them to AudioLDM: 1e-6 of a logarithm near -11.
    np.testing.assert_allclose(got, by_definition(x, MelSettings()), atol=2e-6, rtol=0)


def test_other_settings_are_kept():
    x = wave(500)
    np.testing.assert_allclose(log_mel(x, SMALL), by_definition(x, SMALL), atol=2e-6, rtol=0)


@pytest.mark.parity
def test_it_is_what_torch_gives():
    import librosa
    import torch

    x = torch.from_numpy(prepare(wave(81920), 81920))
    padded = torch.nn.functional.pad(x[None, None], (432, 432), mode="reflect")[0]
    spectrum = torch.stft(
        padded, 1024, 160, 1024, torch.hann_window(1024), center=False, return_complex=True
    )
    basis = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=64, fmin=0, fmax=8000)
    theirs = (torch.from_numpy(basis) @ spectrum.abs()[0]).clamp(min=1e-5).log().T.numpy()
    # Torch sums in float32: where the mel is near the floor, 1e-7 of a loud sample shows.
    np.testing.assert_allclose(log_mel(x.numpy()), theirs, atol=2e-3)
    np.testing.assert_allclose(log_mel(x.numpy()), theirs, atol=1e-5 / np.exp(theirs).min())


def test_a_window_of_audioldm_has_512_frames():
    assert log_mel(np.zeros(81920, np.float32)).shape == (512, 64)


def test_silence_is_the_floor():
    np.testing.assert_array_equal(log_mel(np.zeros(1600, np.float32)), SILENT)


def test_a_tone_is_in_the_filter_that_holds_it():
    x = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    marks = [slaney_hz(m) for m in np.linspace(0, slaney_mel(8000), 66)]
    nearest = np.argmin(np.abs(np.array(marks[1:-1]) - 1000))
    assert (log_mel(x)[5:-5].argmax(axis=1) == nearest).all()


def test_a_batch_is_its_rows():
    waves = np.stack([wave(3200, seed) for seed in range(6)])
    got = log_mel(waves.reshape(2, 3, -1))
    assert got.shape == (2, 3, 20, 64)
    np.testing.assert_array_equal(got[1, 2], log_mel(waves[5]))
    assert log_mel(waves[:0]).shape == (0, 20, 64)


def test_an_hop_later_is_a_frame_later():
    x = wave(8000)
    np.testing.assert_allclose(log_mel(x)[11:40], log_mel(x[160 * 6 :])[5:34], atol=1e-6)


def test_louder_is_a_constant_more():
    x = wave(3200)
    loud, soft = log_mel(4 * x), log_mel(x)
    over = soft > SILENT
    np.testing.assert_allclose(loud[over] - soft[over], np.log(4), atol=2e-6)


def test_normalising_by_hand():
    np.testing.assert_allclose(normalise(np.array([1.0, 2.0, 6.0])), [-1 / 3, -1 / 6, 0.5])
    np.testing.assert_array_equal(normalise(np.full(7, 0.3, np.float32)), np.zeros(7))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 100), st.floats(-5, 5), st.integers(0, 99))
def test_normalising_forgets_level_and_offset(gain, offset, seed):
    x = np.random.default_rng(seed).standard_normal(50)
    np.testing.assert_allclose(normalise(gain * x + offset), normalise(x), atol=1e-6)
    assert np.abs(normalise(x)).max() == pytest.approx(0.5)


def test_zeros_come_after_normalising():
    x = wave(1000) + 0.2
    got = prepare(x, 1700)
    np.testing.assert_array_equal(got[:1000], normalise(x))
    np.testing.assert_array_equal(got[1000:], 0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_frames_are_valid_when_they_see_the_recording(data):
    window = data.draw(st.integers(64, 400))
    samples = data.draw(st.integers(1, window))
    # One sample that is not 0 is the last of the recording: the last frame that may see it.
    x = np.zeros(window)
    x[:samples] = 1.0 + np.arange(samples) % 3
    seen = (log_mel(x, SMALL) > SILENT).any(axis=1)
    valid = valid_frames(samples, window, SMALL)
    # The weights at a window's edge are as low as 2e-3 of its middle; the recording is loud.
    assert not seen[valid:].any()
    assert seen[:valid].all()


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 3), (49, 3), (50, 4), (209, 4), (210, 5), (81920, 512)]
)
def test_valid_frames_by_hand(samples, frames):
    """Of AudioLDM: frame t begins with weight at sample 160 t - 431, so frame 3 at sample 49."""
    assert valid_frames(samples, 81920) == frames


@pytest.mark.parametrize(("frames", "latents"), [(0, 0), (1, 1), (4, 1), (5, 2), (512, 128)])
def test_a_latent_frame_is_valid_with_its_first_mel_frame(frames, latents):
    assert latent_frames(frames, 4) == latents


def chord(seconds=1.5):
    t = np.arange(round(16000 * seconds)) / 16000
    return sum(np.sin(2 * np.pi * hz * t) for hz in (523.3, 659.3, 784.0)).astype(np.float32)


def test_a_chord_comes_back_from_its_mel():
    x = prepare(chord(), 24000)
    mel = log_mel(x)
    back = to_wave(mel)
    assert back.shape == (24000,)
    assert np.isfinite(back).all()
    inner = slice(10, -10)
    again = log_mel(back)
    loud = mel[inner] > mel.max() - 4
    assert np.abs(again[inner] - mel[inner])[loud].mean() < 0.2
    # The three notes are the three highest peaks, each to less than a semitone.
    size = np.abs(np.fft.rfft(back[4000:20000] * np.hanning(16000)))
    peaks = [hz for hz in range(50, 1000) if size[hz] == size[max(0, hz - 20) : hz + 21].max()]
    top = sorted(sorted(peaks, key=lambda hz: -size[hz])[:3])
    np.testing.assert_allclose(top, [523.3, 659.3, 784.0], atol=25)


def test_inversion_is_a_function_of_its_seed():
    mel = log_mel(prepare(chord(0.3), 4800))
    a, b, other = (to_wave(mel, iterations=4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - other).max() > 0.01


def test_silence_comes_back_silent():
    back = to_wave(np.full((20, 64), SILENT), iterations=2)
    np.testing.assert_array_equal(back, 0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: log_mel(np.zeros(432)), "432 samples; the edges alone need 433"),
        (lambda: log_mel(np.zeros(900), MelSettings(hop=161)), "n_fft and hop even"),
        (lambda: log_mel(np.zeros(900), MelSettings(rate=8000)), "fmax <= rate / 2 = 4000"),
        (lambda: normalise(np.zeros(0)), "0 samples"),
        (lambda: normalise(np.array([np.nan])), "not finite"),
        (lambda: prepare(np.zeros(9), 8), "9 samples for a window of 8; cut"),
        (lambda: valid_frames(0, 800), "0 samples in a window of 800"),
        (lambda: valid_frames(801, 800), "801 samples in a window of 800"),
        (lambda: latent_frames(3, 0), "factor of 0"),
        (lambda: to_wave(np.zeros((20, 63))), "20 frames and 63 mels; give 64 mels and 7 frames"),
        (lambda: to_wave(np.full((20, 64), np.inf)), "not finite"),
    ],
)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()
