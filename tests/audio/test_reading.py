import io
import struct
import tracemalloc

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.audio import reading
from tda_jax.audio.reading import SILENCE, check, info, is_silent, read, windows
from tda_jax.errors import InputError

RATE = 22050
ENCODINGS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "FLOAT"),
    ("WAV", "IMA_ADPCM"),
    ("RF64", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
]


def tones(seconds=1.5, rate=RATE, channels=1):
    t = np.arange(round(seconds * rate))[:, None] / rate
    return (0.4 * np.sin(2 * np.pi * (330 + 110 * np.arange(channels)) * t)).astype(np.float32)


def encoded(wave, rate=RATE, container="WAV", encoding="PCM_16"):
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=container, subtype=encoding)
    return out.getvalue()


def put(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("container", "encoding"), ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_of_file_is_read_whole_and_mono(tmp_path, container, encoding, channels):
    wave = tones(channels=channels)
    path = put(tmp_path / "song", encoded(wave, RATE, container, encoding))
    found = check(path)
    assert (found.rate, found.channels) == (RATE, channels)
    assert len(wave) <= found.frames <= len(wave) + 2100  # ADPCM fills its last block
    got = read(path, RATE)
    assert got.dtype == np.float32
    error = np.abs(got[: len(wave)] - wave.mean(axis=1))
    loose = {"PCM_U8": 0.01, "IMA_ADPCM": 0.02, "VORBIS": 0.02, "MPEG_LAYER_III": 0.02}
    assert np.median(error) < loose.get(encoding, 2**-15)
    if encoding not in loose:
        assert error.max() < 2**-15


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_reading_by_blocks_is_reading_at_once(tmp_path, monkeypatch, container, rate):
    monkeypatch.setattr(reading, "_BLOCK", 4096)
    # Of a tone that few bits describe, an MP3's frames lend each other bits.
    wave = tones(4.0, rate)
    path = put(tmp_path / "a", encoded(wave, rate, container, None))
    whole, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(read(path, rate), whole, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("native", [8000, 44100, 48000, 96000])
def test_resampling_by_parts_is_resampling_the_whole(tmp_path, native, channels):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * native + 17, channels))
    path = put(tmp_path / "a.wav", encoded(wave, native, "WAV", "FLOAT"))
    whole = librosa.resample(
        wave.mean(axis=1).astype(np.float32), orig_sr=native, target_sr=16000, res_type="soxr_hq"
    )
    got = read(path, 16000)
    assert abs(len(got) - len(whole)) <= 1
    np.testing.assert_allclose(got[: len(whole)], whole[: len(got)], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_windows_are_parts_of_the_whole(tmp_path_factory, data):
    frames = data.draw(st.integers(1, 2000))
    length, hop = data.draw(st.integers(1, 700)), data.draw(st.integers(1, 900))
    count = data.draw(st.none() | st.integers(1, 4))
    wave = np.random.default_rng(frames).uniform(-0.5, 0.5, frames).astype(np.float32)
    path = tmp_path_factory.mktemp("w") / "a.wav"
    put(path, encoded(wave, 1000, "WAV", "FLOAT"))
    if np.ptp(wave) < 2 * SILENCE:
        return
    got = list(windows(path, 1000, length / 1000, hop / 1000, count, shortest=0.0))
    expected, start = [], 0
    while start < frames and (count is None or len(expected) < count):
        new = start == 0 or start + length - hop < frames  # some sample no window had before
        if new or start + length <= frames:
            expected.append((start / 1000, wave[start : start + length]))
        start += hop
    expected = [(start, part) for start, part in expected if not is_silent(part)]
    assert [w.start for w in got] == [start for start, _ in expected]
    for window, (_, part) in zip(got, expected, strict=True):
        np.testing.assert_array_equal(window.samples, part)


def test_the_last_window_is_half_a_window_at_least(tmp_path):
    path = put(tmp_path / "a.wav", encoded(tones(2.6), RATE))
    assert [w.start for w in windows(path, 16000, 1.0)] == [0, 1, 2]
    assert [len(w.samples) for w in windows(path, 16000, 1.0)] == [16000, 16000, 9600]
    path = put(tmp_path / "b.wav", encoded(tones(2.4), RATE))
    assert [w.start for w in windows(path, 16000, 1.0)] == [0, 1]
    short = put(tmp_path / "c.wav", encoded(tones(0.2), RATE))
    assert [len(w.samples) for w in windows(short, 16000, 1.0)] == [3200]


def test_silent_windows_leave_their_places_empty(tmp_path):
    wave = tones(4.0)
    wave[RATE : 3 * RATE] = 0
    path = put(tmp_path / "a.wav", encoded(wave))
    assert [w.start for w in windows(path, RATE, 1.0)] == [0, 3]


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 1999), seconds=st.none() | st.integers(1, 2500))
def test_a_part_is_a_part(tmp_path_factory, start, seconds):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 2000).astype(np.float32)
    path = put(tmp_path_factory.mktemp("r") / "a.wav", encoded(wave, 1000, "WAV", "FLOAT"))
    got = read(path, 1000, start / 1000, None if seconds is None else seconds / 1000)
    np.testing.assert_array_equal(got, wave[start : None if seconds is None else start + seconds])


def test_a_long_file_needs_no_memory_of_its_length(tmp_path):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(100):
            file.write(tones(10.0, 8000))
    tracemalloc.start()
    count = sum(1 for _ in windows(path, 16000, 5.12))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 195  # 1000 s, the last window 1.56 s and left out
    assert peak < 4e6  # as float32 at 16 kHz it would be 64 MB


def test_a_wrong_ending_does_not_matter(tmp_path):
    data = encoded(tones(), RATE, "FLAC")
    for name in ("a.mp3", "a.raw", "a", "ünï\ncode.vox"):
        assert check(put(tmp_path / name, data)).container == "FLAC"


def with_samples(*values):
    wave = tones()
    wave[1000 : 1000 + len(values), 0] = values
    return encoded(wave, RATE, "WAV", "FLOAT")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "cannot be read as audio"),
        (b"no audio at all, but words" * 99, "cannot be read as audio"),
        (encoded(tones())[:44], "0 samples"),
        (encoded(tones(0.0)), "0 samples"),
        (with_samples(np.nan), "sample 1000 is not finite"),
        (with_samples(0, 0, np.inf), "sample 1002 is not finite"),
        (encoded(np.zeros((9000, 2))), "silent throughout"),
        (encoded(np.full((9000, 1), 0.25)), "silent throughout, its mono wave stays within 0.25"),
        (encoded(np.tile([2**-15, 0.0], 900)), "silent throughout"),
        (encoded(tones(channels=1) * [1, -1]), "silent throughout"),
    ],
)
def test_what_is_no_music_is_refused(tmp_path, data, says):
    path = put(tmp_path / "bad.wav", data)
    for use in (check, lambda p: read(p, 16000), lambda p: windows(p, 16000, 1.0)):
        with pytest.raises(InputError, match=says) as caught:
            use(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(("container", "encoding"), ENCODINGS)
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.97])
def test_a_file_that_was_cut_off_is_refused(tmp_path, container, encoding, kept):
    data = encoded(tones(6.0, channels=2), RATE, container, encoding)
    path = put(tmp_path / "cut", data[: int(kept * len(data))])
    with pytest.raises(InputError, match=r"cut off|breaks off|0 samples"):
        check(path)


def test_a_wav_without_its_size_is_read_to_its_end(tmp_path):
    data = bytearray(encoded(tones()))
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)
    assert check(put(tmp_path / "piped.wav", bytes(data))).frames == len(tones())


def test_chunks_before_and_after_the_samples_do_not_matter(tmp_path):
    data = encoded(tones())
    place = data.index(b"data")
    odd = b"note" + struct.pack("<I", 3) + b"abc\0"
    path = put(tmp_path / "a.wav", data[:place] + odd + data[place:] + odd)
    assert check(path).frames == len(tones())


def without_header(data):
    """An MP3 without its first frame, which says how long it is."""
    assert b"Xing" in data[:200] or b"Info" in data[:200]
    second = data.index(data[:2], 4)
    return data[second:]


def changing(loud_first):
    """Six seconds that need ever more bits, or ever fewer, so that an MP3's bit rate changes."""
    noise = 0.2 * np.random.default_rng(0).standard_normal((6 * RATE, 1))
    wave = noise * np.linspace(0, 1, 6 * RATE)[:, None] ** 4
    wave = (wave[::-1] if loud_first else wave).astype(np.float32)
    return without_header(encoded(wave, RATE, "MP3", None))


def test_an_mp3_in_which_the_decoder_stops_early_is_refused(tmp_path):
    # libsndfile takes the first frame's bit rate for all, and stops where that would be the end.
    path = put(tmp_path / "a.mp3", changing(loud_first=True))
    assert info(path).frames < 5 * RATE
    with pytest.raises(InputError, match="samples could be decoded"):
        check(path)


def test_an_mp3_whose_length_was_guessed_too_long_is_read(tmp_path):
    path = put(tmp_path / "a.mp3", changing(loud_first=False))
    assert info(path).frames > 7 * RATE
    assert check(path).frames == pytest.approx(6 * RATE, abs=3000)


def test_an_mp3_may_have_tags_around_it(tmp_path):
    data = encoded(tones(3.0), RATE, "MP3", None)
    tag = b"ID3\x04\0\0" + bytes([0, 0, 2, 10]) + bytes(266)
    assert check(put(tmp_path / "a.mp3", tag + data + b"TAG" + bytes(125))).frames == 3 * RATE


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p: windows(p, 16000, 0.0), "seconds = 0.0; give"),
        (lambda p: windows(p, 16000, 1.0, hop=-1.0), "hop = -1.0; give"),
        (lambda p: windows(p, 16000, 1.0, count=0), "count = 0; give"),
        (lambda p: windows(p, 16000, 1e-6), "less than a sample"),
        (lambda p: read(p, 16000, 5.0), "lasts 1.50 s and has nothing from 5.0 s on"),
        (lambda p: read(p, 16000, -1.0), "start = -1.0"),
        (lambda p: check(p.parent / "none.wav"), "none.wav: cannot be read"),
        (lambda p: check(p.parent), "cannot be read"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path, call, says):
    path = put(tmp_path / "a.wav", encoded(tones()))
    with pytest.raises(InputError, match=says):
        call(path)


def test_a_link_that_leads_to_itself_is_refused(tmp_path):
    path = tmp_path / "loop.wav"
    path.symlink_to(path)
    with pytest.raises(InputError, match="cannot be read"):
        check(path)
