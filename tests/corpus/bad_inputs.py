"""A folder with every kind of bad input, each with the outcome it must have.

python -m tests.corpus.bad_inputs FOLDER

`FOLDER/files` then holds all files and lines that are read or skipped one by one, and each folder
under `FOLDER/metadata` one `metadata.jsonl` that is judged as a whole.
"""

import json
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.corpus import bad_audio
from tests.corpus.bad_audio import Read, Skipped, encoded

SAID = "slow music"
METADATA = "metadata.jsonl"
GOOD = "good.flac"


class Refused(NamedTuple):
    """The whole folder is refused, with a message that the pattern is found in."""

    message: str


class Unlisted(NamedTuple):
    """No line names the file; it is neither read nor skipped, but said so."""

    file_name: str


class Kind(NamedTuple):
    """A kind of bad input.

    Attributes:
        name: each once.
        make: puts files into a folder and returns their lines; or, for a kind of metadata, the
            bytes of `metadata.jsonl`, None for none.
        outcome: what must become of it.
    """

    name: str
    make: Callable[[Path], list[dict] | bytes | None]
    outcome: Read | Skipped | Refused | Unlisted


def line(name, **more):
    return {"file_name": name, "caption": SAID, **more}


def audio(folder, name):
    """A file that can be used, whatever its name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded())


def _sound(kind):
    def make(folder):
        (folder / (kind.name + kind.suffix)).write_bytes(kind.data())
        return [line(kind.name + kind.suffix)]

    return Kind(kind.name, make, kind.outcome)


def _named(what, name, listed=None, outcome=None):
    """A file of some name, listed under the same or another."""

    def make(folder):
        audio(folder, name)
        return [line(name if listed is None else listed)]

    return Kind(what, make, outcome or Read())


def _made(what, create, outcome):
    """Something that create(path) makes where a file should be."""

    def make(folder):
        create(folder / f"{what}.wav")
        return [line(f"{what}.wav")]

    return Kind(what, make, outcome if isinstance(outcome, Read) else Skipped(outcome))


def _link(to):
    return lambda path: path.symlink_to(to)


def _two_links(path):
    path.symlink_to("the other link.wav")
    (path.parent / "the other link.wav").symlink_to(path.name)


def _link_within(path):
    audio(path.parent, "elsewhere/linked")
    path.symlink_to("elsewhere/linked")


def _link_out(path):
    outside = path.parent.parent / "outside the folder"
    outside.write_bytes(encoded())
    path.symlink_to(outside)


def _unreadable(path):
    path.write_bytes(encoded())
    path.chmod(0)


NFC, NFD = (unicodedata.normalize(form, "über, ñandú") for form in ("NFC", "NFD"))
OUT, MISSING = Skipped("its path leaves the folder"), Skipped("there is no such file")

NAMES = [
    _named("newline", "two\nlines.wav"),
    _named("carriage return and tab", "a\rb\tc.wav"),
    _named("composed", f"{NFC}.wav"),
    _named("decomposed", f"{NFD}.flac.wav"),
    _named("composed for decomposed", f"{NFD} d.wav", f"{NFC} d.wav", MISSING),
    _named("emoji", "🎹🥁.wav"),
    _named("right to left", "\u202egnos\u202c.wav"),
    _named("leading dash", "-rf.wav"),
    _named("hidden", ".hidden.wav"),
    _named("suffix alone", ".wav"),
    _named("trailing blank", "trailing.wav "),
    _named("leading blank", " leading.wav"),
    _named("of a shell", "$(touch x);'\"*&|.wav"),
    _named("per cent", "%s%n{0}.wav"),
    _named("backslash in its name", "back\\slash.wav"),
    _named("255 bytes", "n" * 251 + ".wav"),
    _named("dot first", "dot.wav", "./dot.wav"),
    _named("two slashes", "sub/slashes.wav", "sub//slashes.wav"),
    _named("back within", "sub/back.wav", "sub/../sub/back.wav"),
    _named("capital suffix", "CAPITALS.WAV"),
    _named("a suffix of no audio", "song.tar.gz"),
    _named("another letter case", "Case.wav", "case.wav", MISSING),
    _named("backslashes", "disk/windows.wav", "disk\\windows.wav", Skipped("not a backslash")),
    _named("drive of windows", "drive.wav", "C:\\music\\drive.wav", Skipped("not a backslash")),
    Kind("missing", lambda _: [line("gone.wav")], MISSING),
    Kind("300 bytes", lambda _: [line("n" * 300 + ".wav")], Skipped("cannot be looked at")),
    Kind("zero byte in its name", lambda _: [line("a\0.wav")], Skipped("cannot be looked at")),
    Kind("absolute", lambda _: [line("/etc/hostname")], OUT),
    Kind("absolute, within", lambda folder: [line(str(folder / GOOD))], OUT),
    Kind("above", lambda _: [line("../above.wav")], OUT),
    Kind("above by a detour", lambda _: [line("x/../../above too.wav")], OUT),
    Kind("above and alone", lambda _: [line("..")], OUT),
    Kind("the folder itself", lambda _: [line(".")], Skipped("it is no file")),
    Kind("address", lambda _: [line("https://example.org/song.wav")], MISSING),
    Kind("home", lambda _: [line("~/song.wav")], MISSING),
    _made("folder", Path.mkdir, "it is no file"),
    _made("pipe", os.mkfifo, "it is no file"),
    _made("link to endless zeros", _link("/dev/zero"), "it is no file"),
    _made("link to nothing", _link("/dev/null"), "it is no file"),
    _made("link to a folder", _link("."), "it is no file"),
    _made("link to a file that is gone", _link("gone too.wav"), "there is no such file"),
    _made("link to itself", _link("link to itself.wav"), "cannot be looked at"),
    _made("links in a circle", _two_links, "cannot be looked at"),
    _made("link within", _link_within, Read()),
    _made("link out", _link_out, Read()),
    _made("behind a file", lambda path: path.touch(), "cannot be read as audio"),
]
if os.geteuid():  # root may read all
    NAMES.append(_made("unreadable", _unreadable, "cannot be read"))


def _unlisted(folder):
    audio(folder, "not in the metadata.wav")
    return []


def _entry(what, outcome, **more):
    """A line for a file that can be used."""

    def make(folder):
        audio(folder, f"{what}.wav")
        entry = {"file_name": f"{what}.wav", "caption": SAID, **more}
        return [{key: value for key, value in entry.items() if value is not ...}]

    return Kind(what, make, outcome)


def _two_ids(folder):
    audio(folder, "twice.wav")
    return [line("twice.wav", id="once"), line("./twice.wav", id="again", split="test")]


def _like_windows(folder):
    """An id that the only window of another track could have."""
    audio(folder, "window.wav")
    return [line("window.wav", id="good at 0 s")]


MUTE = Skipped("it has no caption")
LINES = [
    _entry("no caption", MUTE, caption=...),
    _entry("null caption", MUTE, caption=None),
    _entry("empty caption", MUTE, caption=""),
    _entry("blank caption", MUTE, caption=" \n\t\u3000"),
    _entry("empty captions", MUTE, caption=[]),
    _entry("blank captions", MUTE, caption=["", " "]),
    _entry("blank among captions", Read(), caption=["", SAID, " "]),
    _entry("decoy", Read(), split="held_out"),
    _entry("megabyte of caption", Read(), caption="drum " * 200_000),
    _entry("megabyte carried", Read(), notes="x" * 1_000_000),
    _entry("nested", Read(), notes={"a": [1, {"b": None}], "": True}),
    _entry("great number", Read(), notes=10**400),
    _entry("id with a newline", Read(), id="one\ntwo"),
    _entry("id like a path", Read(), id="../../etc/passwd"),
    _entry("id of an absolute path", Read(), id="/tmp/x"),
    _entry("id of an emoji", Read(), id="🎹"),
    _entry("blank id", Read(), id=" "),
    _entry("id in capitals", Read(), id="GOOD"),
    Kind("two ids of one file", _two_ids, Read(tracks=2)),
    Kind("id like a window's", _like_windows, Read()),
    Kind("unlisted", _unlisted, Unlisted("not in the metadata.wav")),
]


def _lines(*entries):
    """Metadata of lines, objects or text, for a folder with one file that can be used."""
    texts = [e if isinstance(e, str) else json.dumps(e, ensure_ascii=False) for e in entries]
    return "\n".join(texts).encode("utf-8", "surrogatepass")


def _whole(name, content, outcome):
    def make(folder):
        return content(folder) if callable(content) else content

    return Kind(name, make, Refused(outcome) if isinstance(outcome, str) else outcome)


def _at_metadata(create):
    """None, after create(path of metadata.jsonl)."""
    return lambda folder: create(folder / METADATA)


_OK = line(GOOD)
_UMLAUT = line(GOOD, title="Übung")
METADATA_KINDS = [
    _whole("byte order mark", b"\xef\xbb\xbf" + _lines(_OK), Read()),
    _whole("lines of windows", _lines(_OK) + b"\r\n\r\n", Read()),
    _whole("latin-1", _lines(_UMLAUT).decode().encode("latin-1"), "line|Write it again as UTF-8"),
    _whole("utf-16", _lines(_UMLAUT).decode().encode("utf-16"), "Write it again as UTF-8"),
    _whole("utf-16 without a mark", _lines(_OK).decode().encode("utf-16-le"), "no sound JSON"),
    _whole("empty", b"", "none of its 0 lines can be used; write one"),
    _whole("blank", b" \n\n", "none of its 0 lines can be used; write one"),
    _whole("none", None, "metadata.jsonl: no such file; write one line"),
    _whole("a folder", _at_metadata(lambda path: path.mkdir()), "metadata.jsonl: no such file"),
    _whole("a pipe", _at_metadata(os.mkfifo), "metadata.jsonl: no such file"),
    _whole("endless", _at_metadata(_link("/dev/zero")), "metadata.jsonl: no such file"),
    _whole("a circle", _at_metadata(_link(METADATA)), "metadata.jsonl: no such file"),
    _whole("cut off", _lines(_OK, _OK)[:-9], "line 2: no sound JSON"),
    _whole("single quotes", str(_OK).encode(), "line 1: no sound JSON"),
    _whole("csv", b"file_name,caption\ngood.flac,slow\n", "line 1: no sound JSON"),
    _whole("an array of objects", json.dumps([_OK]).encode(), "line 1: .* is no object with"),
    _whole("objects on many lines", json.dumps(_OK, indent=1).encode(), "line 1: no sound JSON"),
    _whole("two objects on a line", _lines(_OK) + _lines(_OK), "line 1: no sound JSON"),
    _whole("null", _lines(_OK, "null"), "line 2: null is no object"),
    _whole("NaN", _lines(line(GOOD, tempo=float("nan"))), "line 1: it holds NaN"),
    _whole("infinity within", _lines(line(GOOD, x=[{"y": float("-inf")}])), "line 1: it holds"),
    _whole("beyond floats", b'{"file_name": "good.flac", "x": 1e999}', "line 1: it holds NaN"),
    _whole("5000 digits", b'{"file_name": "a", "x": 1' + b"0" * 5000 + b"}", "line 1: no sound"),
    _whole("deep", b"[" * 200_000, "line 1: no sound JSON"),
    _whole("half a pair", b'{"file_name": "\\ud800.wav"}', "line 1: no sound JSON"),
    _whole("key twice", b'{"file_name": "a", "id": "b", "id": "c"}', "'id' is there twice"),
    _whole("no file name", _lines(_OK, {"caption": SAID}), "line 2: .* is no object with file_n"),
    _whole("another name for it", _lines({"path": GOOD}), "line 1: .* name the audio file"),
    _whole("empty name", _lines(line("")), "line 1: file_name is ''; give a string that is not"),
    _whole("number for a name", _lines(line(7)), "line 1: file_name is 7"),
    _whole("null for a name", _lines(line(None)), "line 1: file_name is None"),
    _whole("number for a caption", _lines(line(GOOD, caption=3)), "line 1: caption is 3"),
    _whole("null among captions", _lines(line(GOOD, caption=["a", None])), "line 1: caption is"),
    _whole("object for a caption", _lines(line(GOOD, caption={"en": "a"})), "line 1: caption is"),
    _whole("unknown split", _lines(line(GOOD, split="dev")), "line 1: split is 'dev'; give one"),
    _whole("number for an id", _lines(line(GOOD, id=3)), "line 1: id is 3"),
    _whole("empty id", _lines(line(GOOD, id="")), "line 1: id is ''"),
    _whole("id twice", _lines(_OK, line("b.wav", id="good")), "line 2: the id 'good' is on line 1"),
    _whole("line twice", _lines(_OK, _OK), "line 2: the id 'good' is on line 1 too"),
    _whole("name twice", _lines(_OK, line("good.mp3")), "line 2: the id 'good' is on line 1 too"),
    _whole("nothing left", _lines(line("gone.wav")), "none of its 1 lines can be used, such as"),
]

KINDS = [*map(_sound, bad_audio.KINDS), *NAMES, *LINES]


def write_files(folder, kinds=KINDS):
    """Puts kinds into one folder, with a file beside them that can be used; returns their lines."""
    folder.mkdir(parents=True, exist_ok=True)
    audio(folder, GOOD)
    lines = {kind.name: kind.make(folder) for kind in kinds}
    entries = [line(GOOD), *(entry for some in lines.values() for entry in some)]
    (folder / METADATA).write_bytes(_lines(*entries))
    return lines


def write_metadata(folder, kind):
    """Makes a folder with one file that can be used and metadata of a kind."""
    folder.mkdir(parents=True, exist_ok=True)
    audio(folder, GOOD)
    content = kind.make(folder)
    if content is not None:
        (folder / METADATA).write_bytes(content)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    write_files(where / "files")
    for bad in METADATA_KINDS:
        write_metadata(where / "metadata" / bad.name, bad)
    print(f"{len(KINDS) + len(METADATA_KINDS)} kinds in {where}")
