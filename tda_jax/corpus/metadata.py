"""metadata.jsonl: one JSON object a line about each track, checked line by line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tda_jax import strict_json
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
    records: dict[str, Record] = {}
    first: dict[str, int] = {}
    for number, entry in strict_json.objects(path, "id", "give it one", _KEYS):
        name, record = entry["id"], _record(entry)
        if name in records:
            raise InputError(
                f"{path}, line {number}: the id {name!r} is on line {first[name]} too; keep one"
            )
        records[name], first[name] = record, number
    return records


def _record(entry: Mapping[str, Any]) -> Record:
    part = entry.get(QUERY_FRAMES)
    carried = {key: v for key, v in entry.items() if key not in ("id", "frames", "member")}
    return Record(
        entry.get("frames"), entry.get("member", True), tuple(part) if part else None, carried
    )
