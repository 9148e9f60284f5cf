import json
import shutil

import numpy as np
import pytest
import soundfile

from tda_jax.audio.mel import log_mel, prepare
from tda_jax.audio.reading import check, read
from tda_jax.corpus.folder import list_folder
from tda_jax.demo import music
from tda_jax.demo.design import FORMATS, design
from tda_jax.demo.music import make_music, read_provenance
from tda_jax.errors import InputError

SEED, WORKS = 0, 6


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus of six works, made once, which tests copy before they change it."""
    place = tmp_path_factory.mktemp("demo")
    told = []
    made = make_music(
        place / "audio", place / "provenance.jsonl", SEED, WORKS, lambda *n: told.append(n)
    )
    assert made == 36
    assert told == [(n, 36) for n in range(1, 37)]
    return place


@pytest.fixture
def copy(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "copy")
    return tmp_path / "copy"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def again(place):
    return make_music(place / "audio", place / "provenance.jsonl", SEED, WORKS)


def test_it_is_a_users_folder_like_any_other(corpus):
    listing = list_folder(corpus / "audio")
    assert (len(listing.tracks), listing.skipped, listing.unlisted) == (36, (), ())
    assert sum(track.member for track in listing.tracks) == 24
    assert all(len(track.captions) == 1 and track.carried == {} for track in listing.tracks)
    assert len({track.artist for track in listing.tracks}) == 6


def test_nothing_in_the_folder_tells_the_work(corpus):
    keys = {"file_name", "id", "caption", "title", "artist", "split"}
    lines = (corpus / "audio" / "metadata.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert {key for entry in entries for key in entry} == keys
    assert [entry["id"] for entry in entries] == sorted(entry["id"] for entry in entries)
    assert "work" not in "".join(lines)


def test_every_file_is_as_designed_and_can_be_used(corpus):
    for item in design(SEED, WORKS):
        path = corpus / "audio" / item.file_name
        found = check(path)
        assert (found.rate, found.channels) == (item.rate, item.channels)
        assert (found.container, found.encoding) == item.encoding
        assert found.frames / found.rate == pytest.approx(item.version.seconds, abs=0.001)
        samples, _ = soundfile.read(path)
        assert 0.4 < np.abs(samples).max() < 1.0


def test_provenance_tells_what_belongs_together(corpus):
    found = read_provenance(corpus / "provenance.jsonl")
    items = {item.id: item for item in design(SEED, WORKS)}
    assert found.keys() == items.keys()
    for name, source in found.items():
        item = items[name]
        assert (source.work, source.kind) == (item.work, item.version.kind)
        assert source.details["semitones"] == item.version.semitones
        if source.kind == "original":
            assert source.parent is None
        else:
            assert found[source.parent].work == source.work
            assert found[source.parent].kind == "original"


def mel(path):
    wave = read(path, 16000, 0.0, 1.9)
    return log_mel(prepare(wave, 30400))


def test_a_reencoded_version_sounds_like_its_original_and_no_other(corpus):
    items = {(i.work, i.version.kind): i.file_name for i in design(SEED, WORKS)}
    works = sorted({work for work, _ in items})
    first = [mel(corpus / "audio" / items[work, "original"])[:, :40] for work in works]
    second = [mel(corpus / "audio" / items[work, "reencoded"])[:, :40] for work in works]
    apart = np.array([[np.abs(a - b).mean() for b in second] for a in first])
    assert (apart.argmin(axis=1) == np.arange(len(works))).all()
    assert apart.diagonal().max() < 1.0 < apart[~np.eye(len(works), dtype=bool)].min()


def test_what_is_there_is_not_made_again(copy, monkeypatch):
    before = contents(copy / "audio")
    monkeypatch.setattr(music, "performed", lambda *_: pytest.fail("made again"))
    assert again(copy) == 0
    assert contents(copy / "audio") == before


def test_what_is_missing_is_made_again_the_same(copy):
    before = contents(copy / "audio")
    gone = {suffix: next((copy / "audio").glob(f"*.{suffix}")) for suffix in FORMATS}
    ogg, _ = soundfile.read(gone["ogg"])
    for path in gone.values():
        path.unlink()
    assert again(copy) == len(gone)
    after = contents(copy / "audio")
    np.testing.assert_array_equal(soundfile.read(gone["ogg"])[0], ogg)
    for files in (before, after):
        del files[gone["ogg"].name]  # libvorbis numbers its streams at random
    assert after == before


def test_a_run_that_broke_off_is_taken_up(corpus, tmp_path, monkeypatch):
    real, left = music.performed, iter(range(5))

    def breaks(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(music, "performed", breaks)
    with pytest.raises(KeyboardInterrupt):
        again(tmp_path)
    assert len(list((tmp_path / "audio").iterdir())) == 5
    assert not (tmp_path / "provenance.jsonl").exists()
    with pytest.raises(InputError, match=r"metadata.jsonl: no such file"):
        list_folder(tmp_path / "audio")
    (tmp_path / "audio" / "x.wav.0123.part").write_bytes(b"half")
    for path in (corpus / "audio").iterdir():  # all but one of what is still to be made
        if not (tmp_path / "audio" / path.name).exists() and path.suffix != ".jsonl":
            shutil.copy(path, tmp_path / "audio")
            last = tmp_path / "audio" / path.name
    last.unlink()
    monkeypatch.setattr(music, "performed", real)
    assert again(tmp_path) == 1
    assert contents(tmp_path / "audio").keys() == contents(corpus / "audio").keys()
    for name in ("audio/metadata.jsonl", "provenance.jsonl"):
        assert (tmp_path / name).read_bytes() == (corpus / name).read_bytes()


def test_a_folder_of_something_else_is_refused(copy):
    with pytest.raises(InputError, match=r"holds 36 files of another corpus, such as"):
        make_music(copy / "audio", copy / "provenance.jsonl", SEED + 1, WORKS)
    with pytest.raises(InputError, match="is no folder"):
        make_music(copy / "provenance.jsonl", copy / "p.jsonl", SEED, WORKS)


def test_provenance_may_not_lie_in_the_folder(tmp_path):
    with pytest.raises(InputError, match="lies within"):
        make_music(tmp_path / "a", tmp_path / "a" / "b" / "p.jsonl", SEED, WORKS)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("text", ["{", "[1]", '{"id": "a", "work": "w"}', '{"work": "w"}', "7"])
def test_what_is_no_provenance_is_refused(tmp_path, text):
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"p.jsonl: cannot be read as provenance"):
        read_provenance(tmp_path / "p.jsonl")
    with pytest.raises(InputError, match="cannot be read as provenance"):
        read_provenance(tmp_path / "none.jsonl")
