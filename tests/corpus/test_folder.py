import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.corpus.folder import DECOYS, list_folder, report
from tda_jax.errors import InputError


def put(folder, entries, files=None):
    """Writes a folder: a line for each entry, and files of no audio, which listing does not open.

    `entries` are objects, or lines as they shall stand there; every `file_name` gets its file
    unless `files` says which there are.
    """
    if files is None:
        files = [e["file_name"] for e in entries if isinstance(e, dict) and "file_name" in e]
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def line(name="a.wav", caption="slow music", **more):
    return {"file_name": name, "caption": caption, **more}


def test_a_line_is_read_as_it_stands(tmp_path):
    entry = line(
        "disk 1/b.mp3", ["one", "two"], id="B", title="T", artist="A", split="test", year=1999
    )
    listing = list_folder(put(tmp_path, [entry, line()]))
    a, b = listing.tracks[::-1]
    assert (a.id, a.path, a.captions) == ("a", tmp_path / "a.wav", ("slow music",))
    assert (a.title, a.artist, a.split, a.member, a.carried) == (None, None, "train", True, {})
    assert (b.id, b.path, b.captions) == ("B", tmp_path / "disk 1" / "b.mp3", ("one", "two"))
    assert (b.title, b.artist, b.split, b.member) == ("T", "A", "test", False)
    assert b.carried == {"year": 1999}
    assert listing.skipped == ()
    assert listing.unlisted == ()


@pytest.mark.parametrize("split", DECOYS)
def test_other_splits_are_decoys(tmp_path, split):
    assert not list_folder(put(tmp_path, [line(split=split)])).tracks[0].member


@pytest.mark.parametrize(
    ("name", "track"),
    [
        ("a.wav", "a"),
        ("album/song one.tar.flac", "album/song one.tar"),
        ("./a.wav", "a"),
        ("no suffix", "no suffix"),
        ("ünï\ncode.ogg", "ünï\ncode"),
    ],
)
def test_an_id_is_the_file_name_without_its_suffix(tmp_path, name, track):
    assert list_folder(put(tmp_path, [line(name)])).tracks[0].id == track


@settings(max_examples=25, deadline=None)
@given(st.permutations(["a", "b", "c/d", "c/e"]))
def test_the_order_of_lines_does_not_matter(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("f")
    listing = list_folder(put(folder, [line(f"{name}.wav", name) for name in order]))
    assert [track.id for track in listing.tracks] == ["a", "b", "c/d", "c/e"]
    assert [track.captions for track in listing.tracks] == [("a",), ("b",), ("c/d",), ("c/e",)]


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path):
    put(tmp_path, [line()])
    text = json.dumps(line(caption="müsic")) + "\r\n\r\n"
    (tmp_path / "metadata.jsonl").write_bytes(text.encode("utf-8-sig"))
    assert list_folder(tmp_path).tracks[0].captions == ("müsic",)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (line("gone.wav"), "no such file"),
        (line("/etc/hostname"), "leaves the folder"),
        (line("../b.wav"), "leaves the folder"),
        (line("sub/../../b.wav"), "leaves the folder"),
        (line("sub"), "no file"),
        (line("."), "no file"),
        (line("loop.wav"), "cannot be looked at"),
        (line("zero\0byte.wav"), "cannot be looked at"),
        (line("b.wav", ""), "no caption"),
        (line("b.wav", "  \n"), "no caption"),
        (line("b.wav", None), "no caption"),
        (line("b.wav", ["", " "]), "no caption"),
        (line("b.wav", []), "no caption"),
        ({"file_name": "b.wav"}, "no caption"),
    ],
)
def test_a_file_that_cannot_be_used_is_skipped_with_its_reason(tmp_path, entry, says):
    (tmp_path / "f" / "sub").mkdir(parents=True)
    (tmp_path / "b.wav").write_bytes(b"x")
    os.symlink("loop.wav", tmp_path / "f" / "loop.wav")
    listing = list_folder(put(tmp_path / "f", [entry, line()], ["a.wav", "b.wav"]))
    assert [track.id for track in listing.tracks] == ["a"]
    assert [skipped.file_name for skipped in listing.skipped] == [entry["file_name"]]
    assert says in listing.skipped[0].reason


def test_a_path_may_turn_back_within_the_folder(tmp_path):
    put(tmp_path, [line("x/../a.wav")], ["a.wav", "x/b.wav"])
    listing = list_folder(tmp_path)
    assert [track.path.read_bytes() for track in listing.tracks] == [b"x"]
    assert listing.unlisted == ("x/b.wav",)


def test_links_are_followed(tmp_path):
    (tmp_path / "elsewhere.wav").write_bytes(b"x")
    (tmp_path / "f").mkdir()
    os.symlink(tmp_path / "elsewhere.wav", tmp_path / "f" / "a.wav")
    assert len(list_folder(put(tmp_path / "f", [line()], [])).tracks) == 1


def test_blank_captions_among_others_are_left_out(tmp_path):
    listing = list_folder(put(tmp_path, [line(caption=["one", " ", "two"])]))
    assert listing.tracks[0].captions == ("one", "two")


def test_audio_without_a_line_is_named(tmp_path):
    put(tmp_path, [line()], ["a.wav", "b.MP3", "sub/c.flac", "notes.txt", "metadata.csv"])
    listing = list_folder(tmp_path)
    assert listing.unlisted == ("b.MP3", "sub/c.flac")
    assert report(listing).splitlines() == [
        "1 tracks to train on and 0 decoys",
        "2 audio files without a line, such as 'b.MP3', 'sub/c.flac'",
    ]


def test_a_file_that_was_skipped_has_a_line(tmp_path):
    listing = list_folder(put(tmp_path, [line(), line("./b.wav", "")]))
    assert listing.unlisted == ()
    assert "1 skipped, such as './b.wav' (it has no caption" in report(listing)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (["", "{"], "line 2: no sound JSON"),
        (["[1]"], r"line 1: \[1\] is no object with file_name"),
        (["null"], "line 1: null is no object"),
        ([line(), {"caption": "x"}], "line 2: .* is no object with file_name"),
        ([line(), line("")], "line 2: file_name is ''; give a string that is not empty"),
        ([line(3)], "line 1: file_name is 3; give a string"),
        ([line(caption=3)], "line 1: caption is 3; give a string or a list of strings"),
        ([line(caption=["a", None])], "line 1: caption is"),
        ([line(id="")], "line 1: id is ''"),
        ([line(id=7)], "line 1: id is 7"),
        ([line(title=["x"])], "line 1: title is"),
        ([line(split="dev")], "line 1: split is 'dev'; give one of .*'train', 'held_out'"),
        ([line(split=["x"])], "line 1: split is"),
        (['{"file_name": "a.wav", "caption": "x", "caption": "y"}'], "'caption' is there twice"),
        (['{"file_name": "a.wav", "caption": "\\ud800"}'], "line 1: no sound JSON"),
        ([line(), line("a.mp3")], "line 2: the id 'a' is on line 1 too"),
        ([line(), line("gone.wav", id="a")], "line 2: the id 'a' is on line 1 too"),
        ([line(caption="")], "none of its 1 lines can be used, such as 'a.wav': it has no caption"),
        ([""], "none of its 0 lines can be used; write one"),
    ],
)
def test_broken_metadata_is_refused(tmp_path, entries, says):
    with pytest.raises(InputError, match=says):
        list_folder(put(tmp_path, entries, ["a.wav", "a.mp3"]))


def test_what_is_no_folder_of_audio_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        list_folder(tmp_path / "none")
    with pytest.raises(InputError, match=r"metadata.jsonl: no such file; write one line"):
        list_folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_bytes(json.dumps(line(caption="mü")).encode("utf-16"))
    with pytest.raises(InputError, match="Write it again as UTF-8"):
        list_folder(tmp_path)
