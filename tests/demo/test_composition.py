import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.demo.composition import BARS, MAJOR, SCALES, compose, pitch_of
from tda_jax.demo.instruments import FAMILIES
from tda_jax.demo.styles import STYLES
from tda_jax.errors import InputError


def works(seed=0):
    return [compose(seed, i, STYLES[i % 6], i // 6) for i in range(24)]


def tonic_of(work):
    """The melody ends on the tonic."""
    return work.melody[-1].pitch % 12


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_every_note_is_in_the_scale_and_in_the_bars(seed):
    for work in works(seed):
        scale = {(tonic_of(work) + step) % 12 for step in SCALES[work.mode]}
        for notes in (work.melody, work.harmony, work.low):
            assert {note.pitch % 12 for note in notes} <= scale
            assert all(0 <= note.start < note.start + note.length <= work.beats for note in notes)
        assert all(0 <= hit.start < work.beats for hit in work.hits)
        assert max(note.pitch for note in work.low) < 66
        assert 52 <= min(n.pitch for n in work.harmony) <= max(n.pitch for n in work.harmony) < 64
        assert 60 <= min(n.pitch for n in work.melody) <= max(n.pitch for n in work.melody) < 100


def bar(work, number):
    return [n for n in work.melody if number * work.metre <= n.start < (number + 1) * work.metre]


def test_a_motif_comes_again():
    for work in works():
        starts = [[n.start % work.metre for n in bar(work, b)] for b in range(BARS)]
        assert starts[0] == starts[1] == starts[3]
        assert starts[0] != starts[2]


def test_the_melody_fills_every_bar_and_its_notes_do_not_overlap():
    for work in works():
        ends = [note.start + note.length / 0.95 for note in work.melody]
        starts = [note.start for note in work.melody]
        np.testing.assert_allclose([*starts, work.beats], [0, *ends], atol=1e-9)


def test_busy_melodies_have_more_notes_to_the_bar():
    count = {"busy": [], "sparse": []}
    for work in works():
        count[work.motion] += [len(bar(work, number)) / work.metre for number in range(BARS)]
    assert max(count["sparse"]) <= 1 < 1.5 < min(count["busy"])


def test_a_bar_begins_with_a_note_of_its_chord():
    for work in works():
        for number in range(BARS):
            chord = {n.pitch % 12 for n in work.harmony if n.start // work.metre == number}
            low = {n.pitch % 12 for n in work.low if n.start // work.metre == number}
            assert len(chord) == 3
            assert low & chord
            assert bar(work, number)[0].pitch % 12 in chord


def test_works_of_an_artist_are_of_his_style_and_differ():
    for k, style in enumerate(STYLES):
        mine = works()[k::6]
        assert {work.artist for work in mine} == {style.artist}
        assert all(style.tempos[0] <= work.tempo <= style.tempos[1] for work in mine)
        assert len({tuple(note.pitch for note in work.melody) for work in mine}) == 4
        assert len({tuple(note.pitch for note in work.harmony) for work in mine}) == 4


def test_no_artist_has_a_mode_a_tempo_an_instrument_or_its_drums_alone():
    everyone = {}
    for style in STYLES:
        said = {"major": style.mode in MAJOR}
        for what, value in said.items():
            everyone.setdefault((what, value), set()).add(style.artist)
        for role, names in (("lead", style.leads), ("chords", style.chords)):
            for name in names:
                family = FAMILIES[name].replace("flute", "bowed strings")
                everyone.setdefault((role, family), set()).add(style.artist)
        for has in style.drummed:
            everyone.setdefault(("drums", has), set()).add(style.artist)
        for motion in style.motions:
            everyone.setdefault(("motion", motion), set()).add(style.artist)
    assert {key: len(who) for key, who in everyone.items() if len(who) < 2} == {}


def test_a_work_is_a_function_of_its_seed_and_number():
    assert works(3) == works(3)
    assert works(3) != works(4)


def test_degrees_go_on_over_octaves():
    major = SCALES["major"]
    assert [pitch_of(60, major, d) for d in (-7, -1, 0, 6, 7, 9)] == [48, 59, 60, 71, 72, 76]


def test_negative_numbers_are_refused():
    with pytest.raises(InputError, match="work -1, turn 0"):
        compose(0, -1, STYLES[0], 0)
