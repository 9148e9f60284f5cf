"""metadata.jsonl: one JSON object a line about each track, checked line by line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tda_jax.errors import InputError
from tda_jax.kinds import BOOL, COUNT, Kind, is_whole

QUERY_FRAMES = "query_frames"


def _is_range(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2 and all(map(is_whole, value))
    return pair and 0 <= value[0] < value[1]


_KEYS = {
    "id": Kind("a string that is not empty", lambda v: isinstance(v, str) and v != ""),
    "frames": COUNT,
    "member": BOOL,
    QUERY_FRAMES: Kind("two whole numbers [start, stop], 0 <= start < stop", _is_range),
}


class Record(NamedTuple):
    """What one line says of a track.

    Attributes:
        frames: how many frames from the first are music; None where the line does not say.
        member: False for a decoy, which the model was not trained on.
        query_frames: [start, stop), the part of a query that is asked about; None for all of it.
        carried: everything but id, frames and member, as it stands there.
    """

    frames: int | None
    member: bool
    query_frames: tuple[int, int] | None
    carried: Mapping[str, Any]


def read_metadata(path: Path) -> dict[str, Record]:
    """The records of a file by track id. Empty lines are passed over.

    Raises:
        InputError: the file cannot be read; a line is no JSON object, or lacks an id; a key is
            there twice or has a value of the wrong kind; an id has two lines. The message gives
            the number of the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Write it again as UTF-8") from error
    records: dict[str, Record] = {}
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, record = _parse(f"{path}, line {number}", line)
        if name in records:
            raise InputError(
                f"{path}, line {number}: the id {name!r} is on line {first[name]} too; keep one"
            )
        records[name], first[name] = record, number
    return records


def _parse(where: str, line: str) -> tuple[str, Record]:
    try:
        entry = json.loads(line, object_pairs_hook=_unique)
        json.dumps(entry, ensure_ascii=False).encode()  # fails for half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no sound JSON ({error}); write one object a line") from error
    if not isinstance(entry, dict) or "id" not in entry:
        raise InputError(f"{where}: {line.strip()[:80]} is no object with an id; give it one")
    for key, kind in _KEYS.items():
        if key in entry and not kind.accepts(entry[key]):
            raise InputError(f"{where}: {key} is {entry[key]!r}; give {kind.words}")
    part = entry.get(QUERY_FRAMES)
    carried = {key: v for key, v in entry.items() if key not in ("id", "frames", "member")}
    return entry["id"], Record(
        entry.get("frames"), entry.get("member", True), tuple(part) if part else None, carried
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found
