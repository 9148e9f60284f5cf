"""Excerpts and their pictures: what is in them, when they are made, and when they are removed."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from tda_jax.audio.mel import log_mel, prepare
from tda_jax.report import pictures, players
from tda_jax.report.players import Missing, Player, Recording

RATE = 16000


def tone(path, hertz=440.0, seconds=3.0, rate=RATE, channels=1):
    time = np.arange(round(rate * seconds)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hertz * time)
    wave[: len(wave) // 2] *= 0.5  # so that a start can be told
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate, format="WAV")
    return Recording(path, "music/tone.wav")


def level(path):
    wave, _ = soundfile.read(path)
    return np.sqrt((wave[1200:-1200] ** 2).mean())


@pytest.mark.parametrize(("rate", "wanted"), [(16000, 16000), (22255, 44100), (96000, 44100)])
def test_an_excerpt_is_the_part_that_was_asked_for(tmp_path, rate, wanted):
    given = tone(tmp_path / "x.wav", rate=rate, channels=2)
    found = players.player(tmp_path / "out", given, 1.5, 1.0)
    path = tmp_path / "out" / found.audio
    header = soundfile.info(path)
    assert (header.format, header.samplerate, header.channels) == ("MP3", wanted, 1)
    assert found.start == 1.5
    assert found.seconds == pytest.approx(1.0, abs=0.08)
    assert found.seconds == pytest.approx(header.frames / wanted, abs=0.005)
    assert level(path) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)
    first = players.player(tmp_path / "out", given, 0.0, 1.0)
    assert level(tmp_path / "out" / first.audio) == pytest.approx(0.25 / np.sqrt(2), rel=0.03)
    assert {first.audio, first.picture}.isdisjoint({found.audio, found.picture})


def test_it_is_made_once_and_shared_by_all_that_sound_alike(tmp_path, monkeypatch):
    given = tone(tmp_path / "x.wav")
    first = players.player(tmp_path, given, 0.0, 9.0)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    monkeypatch.setattr(players, "write_mp3", None)
    assert players.player(tmp_path, given, 0.0, 9.0) == first
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "x.wav").write_bytes(given.path.read_bytes())
    copy = Recording(tmp_path / "again" / "x.wav", "another")
    assert players.player(tmp_path, copy, 0.0, 9.0) == first
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())


def test_another_recording_under_the_same_name_is_another_excerpt(tmp_path):
    first = players.player(tmp_path, tone(tmp_path / "x.wav"), 0.0, 9.0)
    second = players.player(tmp_path, tone(tmp_path / "x.wav", hertz=880), 0.0, 9.0)
    assert first.audio != second.audio


def test_what_cannot_be_played_is_said_without_paths_of_the_machine(tmp_path):
    broken = Recording(tmp_path / "b.wav", "music/b.wav")
    broken.path.write_bytes(b"no sound")
    gone = Recording(tmp_path / "none.wav", "music/none.wav")
    short = tone(tmp_path / "x.wav", seconds=1.0)
    silent = Recording(tmp_path / "s.wav", "music/s.wav")
    soundfile.write(silent.path, np.zeros(RATE), RATE)
    for given, start, words in (
        (broken, 0.0, "music/b.wav: cannot be read as audio"),
        (gone, 0.0, "music/none.wav: cannot be read"),
        (short, 5.0, "music/tone.wav: lasts 1.00 s and has nothing from 5.0 s on"),
        (silent, 0.0, "music/s.wav: silent throughout"),
    ):
        found = players.player(tmp_path / "out", given, start, 2.0)
        assert isinstance(found, Missing)
        assert found.reason.startswith(words)
        assert str(tmp_path) not in found.reason
    assert not (tmp_path / "out").exists()
    assert players.player(tmp_path, Missing("why"), 0.0, 1.0) == Missing("why")


def test_a_wave_beyond_full_scale_is_not_clipped(tmp_path):
    wave = (3.0 * np.sin(np.arange(2 * RATE) / 8)).astype(np.float32)
    players.write_mp3(tmp_path / "x.mp3", wave, RATE)
    heard, _ = soundfile.read(tmp_path / "x.mp3")
    assert level(tmp_path / "x.mp3") == pytest.approx(0.95 / np.sqrt(2), rel=0.02)
    assert np.abs(heard[2400:-2400]).max() < 1.0  # the encoder rings where a sound begins


def test_only_excerpts_of_earlier_reports_are_removed(tmp_path):
    kept = players.player(tmp_path, tone(tmp_path / "x.wav"), 0.0, 1.0)
    players.player(tmp_path, tone(tmp_path / "y.wav", hertz=300), 0.0, 1.0)
    mine = [tmp_path / "audio" / "my own.mp3", tmp_path / "pictures" / "cover.png"]
    for path in mine:
        path.write_bytes(b"mine")
    players.remove_others(tmp_path, [kept])
    left = {p for name in ("audio", "pictures") for p in (tmp_path / name).iterdir()}
    assert left == {*mine, tmp_path / kept.audio, tmp_path / kept.picture}
    players.remove_others(tmp_path, [])
    assert {p for name in ("audio", "pictures") for p in (tmp_path / name).iterdir()} == {*mine}
    players.remove_others(tmp_path / "nowhere", [Player("audio/a", "pictures/b", 0.0, 1.0)])


def test_a_picture_shows_the_log_mel(tmp_path):
    time = np.arange(2 * RATE) / RATE
    wave = (0.5 * np.sin(2 * np.pi * np.where(time < 1, 300, 4000) * time)).astype(np.float32)
    shades = pictures.ink(wave, RATE)
    mel = log_mel(prepare(wave, len(wave)))
    assert shades.shape == (64, 200)  # a column a frame, as there are fewer than the most
    level = (mel - pictures.QUIETEST) / (pictures.LOUDEST - pictures.QUIETEST)
    np.testing.assert_array_equal(shades, np.round(np.clip(level, 0, 1).T[::-1] * 23))
    low, high = (int(shades[:, part].sum(axis=1).argmax()) for part in (slice(90), slice(110, 200)))
    assert low > high  # what is higher in pitch is nearer to the top
    pictures.draw(tmp_path / "x.png", wave, RATE)
    with Image.open(io.BytesIO((tmp_path / "x.png").read_bytes())) as picture:
        assert picture.size == (200, 64)
        grey = np.asarray(picture.convert("L")).astype(int)
    assert (np.diff(grey.reshape(-1)[shades.reshape(-1).argsort()]) <= 0).all()


def test_long_recordings_have_no_wider_pictures():
    rng = np.random.default_rng(0)
    wave = rng.standard_normal(20 * RATE).astype(np.float32)
    shades = pictures.ink(wave, RATE)
    assert shades.shape == (64, 720)
    assert pictures.ink(wave[:100], RATE).shape[0] == 64  # less than a frame of the spectrogram
    assert pictures.ink(np.zeros(RATE, np.float32), RATE).max() == 0
