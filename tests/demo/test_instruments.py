import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.demo.composition import DRUMS
from tda_jax.demo.instruments import FAMILIES, stroke, tone
from tda_jax.demo.styles import STYLES
from tda_jax.errors import InputError

RATE = 32000


def spectrum(wave, hz):
    """The size of a wave's part at each of some frequencies."""
    t = np.arange(len(wave)) / RATE
    windowed = wave * np.hanning(len(wave))
    return np.abs(np.exp(-2j * np.pi * np.outer(hz, t)) @ windowed)


@pytest.mark.parametrize("instrument", sorted(FAMILIES))
@settings(max_examples=4, deadline=None)
@given(pitch=st.integers(45, 88))
def test_every_instrument_is_in_tune(instrument, pitch):
    wanted = 440 * 2 ** ((pitch - 69) / 12)
    cents = np.arange(-60, 61, 3)
    found = spectrum(tone(instrument, pitch, 0.5, RATE), wanted * 2 ** (cents / 1200))
    assert abs(cents[found.argmax()]) <= 15  # of which vibrato and two players take 12


@pytest.mark.parametrize("instrument", sorted(FAMILIES))
def test_a_note_begins_and_dies_away_without_a_click(instrument):
    wave = tone(instrument, 60, 0.5, RATE)
    assert wave.shape == (round(0.62 * RATE),)
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    assert 0.3 < np.abs(wave).max() < 1.5
    assert np.abs(wave[-20:]).max() < 1e-3
    np.testing.assert_array_equal(wave, tone(instrument, 60, 0.5, RATE))


def test_timbres_differ():
    """The sizes of twelve harmonics over time tell every two instruments apart."""
    prints = {}
    for name in FAMILIES:
        wave = tone(name, 60, 0.8, RATE)
        hz = 261.63 * np.arange(1, 13)
        early, late = spectrum(wave[:9600], hz), spectrum(wave[12800:22400], hz)
        prints[name] = np.log(np.concatenate([early, late]) / early.sum() + 1e-4)
    names = sorted(prints)
    apart = [
        np.abs(prints[a] - prints[b]).mean() for i, a in enumerate(names) for b in names[i + 1 :]
    ]
    assert min(apart) > 0.3


def test_struck_instruments_fade_and_bowed_ones_do_not():
    def ratio(name):
        wave = tone(name, 60, 1.0, RATE)
        return wave[25600:32000].std() / wave[6400:12800].std()

    assert max(ratio(n) for n in ("epiano", "bells", "guitar", "harp")) < 0.6
    assert min(ratio(n) for n in ("organ", "violin", "strings", "flute")) > 0.8


@pytest.mark.parametrize("drum", DRUMS)
def test_drums_die_away(drum):
    wave = stroke(drum, RATE)
    third = len(wave) // 3
    assert wave[-third:].std() < 0.2 * wave[:third].std()
    assert 0.3 < np.abs(wave).max() < 2


def test_drums_have_their_registers():
    def middle(drum):
        power = np.abs(np.fft.rfft(stroke(drum, RATE))) ** 2
        return (power * np.fft.rfftfreq(len(stroke(drum, RATE)), 1 / RATE)).sum() / power.sum()

    assert middle("kick") < 200 < middle("snare") < middle("hat")


def test_every_instrument_of_a_style_exists():
    for style in STYLES:
        assert {*style.leads, *style.chords, style.bass} <= set(FAMILIES)


def test_what_does_not_exist_is_refused():
    with pytest.raises(InputError, match="instrument 'kazoo'; choose one of"):
        tone("kazoo", 60, 1.0, RATE)
    with pytest.raises(InputError, match="drum 'gong'; choose one of"):
        stroke("gong", RATE)
