import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.demo.composition import compose
from tda_jax.demo.rendering import RATE, events, render
from tda_jax.demo.styles import STYLES
from tda_jax.errors import InputError

WORK = compose(0, 3, STYLES[3], 0)


def by_part(work, tempo, end, hands="a"):
    found = {}
    for event in events(work, tempo, end, 0, hands):
        found.setdefault(event.part, []).append(event)
    return found


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 20), st.floats(0, 10))
def test_a_longer_performance_begins_as_the_shorter(end, more):
    short, long = by_part(WORK, 120.0, end), by_part(WORK, 120.0, end + more)
    for part, found in short.items():
        assert long[part][: len(found)] == found


def test_it_goes_round_and_ends():
    played = by_part(WORK, 120.0, 20.0)["melody"]
    beats = [note.start for note in WORK.melody]
    expected = [b + r * WORK.beats for r in range(3) for b in beats]
    expected = [beat / 2 for beat in expected if beat / 2 < 20.0]
    assert len(played) == len(expected)
    np.testing.assert_allclose([e.start for e in played], expected, atol=0.03)
    assert [e.pitch for e in played[: len(beats)]] == [n.pitch for n in WORK.melody]


def test_tempo_moves_notes_apart():
    slow, fast = by_part(WORK, 60.0, 8.0)["low"], by_part(WORK, 120.0, 4.0)["low"]
    assert [e.pitch for e in slow] == [e.pitch for e in fast]
    np.testing.assert_allclose([e.start / 2 for e in slow], [e.start for e in fast], atol=0.03)
    np.testing.assert_allclose([e.seconds for e in slow], [2 * e.seconds for e in fast])


def test_other_hands_play_otherwise():
    assert by_part(WORK, 120.0, 4.0, "a") == by_part(WORK, 120.0, 4.0, "a")
    assert by_part(WORK, 120.0, 4.0, "a") != by_part(WORK, 120.0, 4.0, "b")


def test_an_excerpt_is_cut_from_the_whole():
    whole = render(WORK, 120.0, 0.0, 4.0, 0, "a")
    part = render(WORK, 120.0, 2.0, 1.5, 0, "a")
    inner = slice(round(0.01 * RATE), round(1.2 * RATE))
    a, b = whole[2 * RATE :][inner], part[inner]
    np.testing.assert_allclose(a * (b.std() / a.std()), b, atol=1e-3)


def test_it_is_stereo_with_a_peak_of_one_and_quiet_ends():
    wave = render(WORK, 120.0, 0.0, 1.5, 0, "a")
    assert wave.shape == (round(1.5 * RATE), 2)
    assert wave.dtype == np.float32
    assert np.abs(wave).max() == pytest.approx(1.0)
    assert np.abs(wave[[0, -1]]).max() < 0.01
    assert np.abs(wave[:, 0] - wave[:, 1]).max() > 0.05
    np.testing.assert_array_equal(wave, render(WORK, 120.0, 0.0, 1.5, 0, "a"))


def test_the_pulse_can_be_heard():
    """The kick on each beat of this style rises from the lowest notes twice a second."""
    low = render(WORK, 120.0, 0.0, 4.0, 0, "a").mean(axis=1)
    power = np.add.reduceat(low**2, np.arange(0, len(low), 320))
    rises = np.maximum(np.diff(power), 0)
    rises -= rises.mean()
    lags = [rises[k:] @ rises[: len(rises) - k] for k in range(10, 80)]
    # 50 frames of 10 ms are a beat, 25 half of one.
    assert 10 + int(np.argmax(lags)) in (24, 25, 26, 49, 50, 51)


@pytest.mark.parametrize("wrong", [(0.0, 0.0, 1.0), (120.0, -1.0, 1.0), (120.0, 0.0, 0.0)])
def test_impossible_times_are_refused(wrong):
    with pytest.raises(InputError, match="tempo = "):
        render(WORK, *wrong, 0, "a")
