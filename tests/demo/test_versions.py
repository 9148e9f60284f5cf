import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.demo.composition import MAJOR
from tda_jax.demo.design import works_of
from tda_jax.demo.instruments import FAMILIES
from tda_jax.demo.versions import ASPECTS, KINDS, LONG, SHORT, arranged, caption, versions_of
from tda_jax.errors import InputError


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sets(st.sampled_from([k for k in KINDS if k != "reencoded"])))
def test_each_kind_differs_in_what_it_is_named_for(seed, short):
    for work in works_of(seed, 6):
        made = versions_of(work, seed, frozenset(short))
        assert [version.kind for version in made] == list(KINDS)
        original, transposed, other, tempo, excerpt, reencoded = made
        assert original[1:6] == (0, work.tempo, work.lead, work.chords, 0.0)
        assert 2 <= abs(transposed.semitones) <= 5
        assert FAMILIES[other.lead] != FAMILIES[work.lead]
        assert FAMILIES[other.chords] != FAMILIES[work.chords]
        assert 0.79 < tempo.tempo / work.tempo < 0.87 or 1.19 < tempo.tempo / work.tempo < 1.29
        bars = excerpt.start * work.tempo / 60 / work.metre
        assert round(bars) in (1, 2, 3)
        assert bars == pytest.approx(round(bars))
        assert original.hands == excerpt.hands == reencoded.hands
        assert len({version.hands for version in made}) == 4
        assert reencoded[1:6] == original[1:6]
        assert 0 <= original.seconds - reencoded.seconds < 0.31
        for version in made[:-1]:
            least, most = SHORT if version.kind in short else LONG
            assert least <= version.seconds <= most


def test_arranging_moves_pitched_parts_only():
    work = works_of(0, 6)[1]
    version = versions_of(work, 0, frozenset())[1]
    moved = arranged(work, version)
    for before, after in (
        (work.melody, moved.melody),
        (work.harmony, moved.harmony),
        (work.low, moved.low),
    ):
        assert [n.pitch + version.semitones for n in before] == [n.pitch for n in after]
        assert [n._replace(pitch=0) for n in before] == [n._replace(pitch=0) for n in after]
    assert moved.hits == work.hits


def test_captions_say_what_is_so():
    for work in works_of(0, 24):
        for version in versions_of(work, 0, frozenset()):
            said = {aspect: caption(work, version, aspect) for aspect in ASPECTS}
            assert len(set(said.values())) == len(ASPECTS)
            slow, fast = version.tempo < 90, version.tempo > 119
            assert ("slow" in said["tempo"], "fast" in said["tempo"]) == (slow, fast)
            assert ("major" in said["mode"]) == (work.mode in MAJOR)
            assert ("without" in said["drums"]) == (len(work.hits) == 0)
            assert ("many" in said["motion"]) == (work.motion == "busy")
            assert FAMILIES[version.chords] in said["chords"]
            flute = version.lead in ("flute", "violin")
            assert ("flute or a violin" if flute else FAMILIES[version.lead]) in said["lead"]


def test_what_is_not_known_is_refused():
    work = works_of(0, 6)[0]
    with pytest.raises(InputError, match="aspect 'mood'"):
        caption(work, versions_of(work, 0, frozenset())[0], "mood")
    with pytest.raises(InputError, match=r"kinds \['live'\]"):
        versions_of(work, 0, frozenset({"live"}))
