"""A user's folder of audio with `metadata.jsonl`: what is in it, before any audio is read.

The convention is that of Hugging Face's AudioFolder. One JSON object a line:

    file_name   path of a file, relative to the folder, with "/" between its parts
    caption     a string, or a list of strings
    id          optional: by default the file name without its suffix
    title       optional
    artist      optional
    split       optional: "train" (the default), or "held_out", "test" or "validation" for decoys,
                which no model is trained on
    ...         anything else, which is carried along

Symbolic links are followed, so that a folder may be put together from links.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tda_jax import strict_json
from tda_jax.errors import InputError
from tda_jax.kinds import STR, Kind

METADATA = "metadata.jsonl"
TRAIN = "train"
DECOYS = ("held_out", "test", "validation")
SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"}
    | {".au", ".caf", ".w64", ".rf64", ".m4a", ".aac", ".wma"}
)
_SHOWN = 5  # names that a message gives; the rest are counted


def _is_captions(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return value is None or all(map(STR.accepts, texts))


_SPLITS = (TRAIN, *DECOYS)
_KEYS = {
    "file_name": Kind("a string that is not empty", lambda v: STR.accepts(v) and v != ""),
    "caption": Kind("a string or a list of strings", _is_captions),
    "id": Kind("a string that is not empty", lambda v: STR.accepts(v) and v != ""),
    "title": Kind("a string, or null", lambda v: v is None or STR.accepts(v)),
    "artist": Kind("a string, or null", lambda v: v is None or STR.accepts(v)),
    "split": Kind(f"one of {list(_SPLITS)}", lambda v: v in _SPLITS),
}


class Track(NamedTuple):
    """One file that is to be read.

    Attributes:
        id: its name in everything that follows.
        file_name: as its line gives it, relative to the folder.
        path: of the file.
        captions: at least one, none of them blank.
        title: None where the metadata does not say.
        artist: likewise.
        split: "train", or one of `DECOYS`.
        carried: the other keys of its line.
    """

    id: str
    file_name: str
    path: Path
    captions: tuple[str, ...]
    title: str | None
    artist: str | None
    split: str
    carried: Mapping[str, Any]

    @property
    def member(self) -> bool:
        """Whether a model is trained on it; False for a decoy."""
        return self.split == TRAIN


class Skipped(NamedTuple):
    """A line whose file cannot be used.

    Attributes:
        file_name: as the line gives it.
        reason: what is wrong, and what to do.
    """

    file_name: str
    reason: str


class Listing(NamedTuple):
    """What a folder holds.

    Attributes:
        tracks: in the order of their ids.
        skipped: in the order of their lines.
        unlisted: files with a suffix of audio that no line names, sorted; relative to the folder.
    """

    tracks: tuple[Track, ...]
    skipped: tuple[Skipped, ...]
    unlisted: tuple[str, ...]


def list_folder(folder: Path) -> Listing:
    """Lists a folder of audio. No audio is opened.

    A line is skipped, not refused, where its file is missing, is no file or cannot be looked at,
    where its path is absolute or leads out of the folder by "..", and where it has no caption that
    is not blank. Of a list of captions, blank ones are left out.

    Raises:
        InputError: there is no such folder, or no metadata.jsonl in it; a line of it is no sound
            JSON object, lacks `file_name`, or has a value of the wrong kind or a NaN (the message
            gives the number of the line); two lines have one id; no line can be used.
    """
    path = folder / METADATA
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds audio and {METADATA}")
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; write one line for each audio file, such as "
            '{"file_name": "song.wav", "caption": "slow piano music"}'
        )
    tracks: list[Track] = []
    skipped: list[Skipped] = []
    names, first = set(), {}
    for number, entry in strict_json.objects(path, "file_name", "name the audio file", _KEYS):
        _refuse_nan(f"{path}, line {number}", entry)
        names.add(os.path.normpath(entry["file_name"]))
        track, reason = _track(folder, entry)
        if track.id in first:
            raise InputError(
                f"{path}, line {number}: the id {track.id!r} is on line {first[track.id]} too; "
                "give each line an id of its own"
            )
        first[track.id] = number
        if reason:
            skipped.append(Skipped(entry["file_name"], reason))
        else:
            tracks.append(track)
    if not tracks:
        raise InputError(f"{path}: none of its {len(first)} lines can be used{_why(skipped)}")
    tracks.sort(key=lambda track: track.id)
    return Listing(tuple(tracks), tuple(skipped), _unlisted(folder, names))


def report(listing: Listing) -> str:
    """What was found and what was left out, in a few lines of words."""
    members = sum(track.member for track in listing.tracks)
    lines = [f"{members} tracks to train on and {len(listing.tracks) - members} decoys"]
    if listing.skipped:
        shown = [f"{s.file_name!r} ({s.reason})" for s in listing.skipped[:_SHOWN]]
        lines.append(f"{len(listing.skipped)} skipped, such as " + "; ".join(shown))
    if listing.unlisted:
        shown = ", ".join(map(repr, listing.unlisted[:_SHOWN]))
        lines.append(f"{len(listing.unlisted)} audio files without a line, such as {shown}")
    return "\n".join(lines)


def _track(folder: Path, entry: Mapping[str, Any]) -> tuple[Track, str | None]:
    """The track of a line, and why it cannot be used, if it cannot."""
    name = entry["file_name"]
    captions = entry.get("caption") or []
    captions = [captions] if isinstance(captions, str) else captions
    track = Track(
        id=entry.get("id", os.path.splitext(PurePosixPath(name).as_posix())[0]),
        file_name=name,
        path=folder / name,
        captions=tuple(text for text in captions if text.strip()),
        title=entry.get("title"),
        artist=entry.get("artist"),
        split=entry.get("split", TRAIN),
        carried={key: value for key, value in entry.items() if key not in _KEYS},
    )
    reason = _unusable(folder, name)
    if reason is None and not track.captions:
        reason = "it has no caption; give it a `caption` that says something"
    return track, reason


def _refuse_nan(where: str, entry: Mapping[str, Any]) -> None:
    """NaN and Infinity are no JSON: other programs could not read what is carried along."""
    try:
        json.dumps(entry, allow_nan=False)
    except ValueError as error:
        raise InputError(
            f"{where}: it holds NaN or an infinite number, which JSON has not; write null"
        ) from error


def _unusable(folder: Path, name: str) -> str | None:
    if Path(name).is_absolute() or os.path.normpath(name).split(os.sep)[0] == os.pardir:
        return "its path leaves the folder; move the file in, and give a path within it"
    path = folder / name
    try:
        path.stat()
    except FileNotFoundError:
        parts = ' (between its parts stands "/", not a backslash)' if "\\" in name else ""
        return f"there is no such file; mend its name{parts}, or take out the line"
    except (OSError, ValueError) as error:  # no permission, a loop of links, a zero byte
        return f"it cannot be looked at ({error}); mend the file, or take out the line"
    if not path.is_file():
        return "it is no file; give the path of one"
    return None


def _unlisted(folder: Path, names: set[str]) -> tuple[str, ...]:
    found = []
    for here, _, files in os.walk(folder):
        for file in files:
            name = os.path.relpath(os.path.join(here, file), folder)
            if Path(file).suffix.lower() in SUFFIXES and name not in names:
                found.append(Path(name).as_posix())
    return tuple(sorted(found))


def _why(skipped: list[Skipped]) -> str:
    if not skipped:
        return "; write one for each audio file"
    shown = "; ".join(f"{s.file_name!r}: {s.reason}" for s in skipped[:_SHOWN])
    return f", such as {shown}"
