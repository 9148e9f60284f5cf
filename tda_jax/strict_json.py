"""JSON as people write it by hand: what the parser would pass over in silence is refused."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tda_jax.errors import InputError
from tda_jax.kinds import Kind


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An `object_pairs_hook` that refuses a key that is there twice.

    Raises:
        ValueError: names the key.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def objects(
    path: Path, key: str, remedy: str, kinds: Mapping[str, Kind]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, with the numbers of their lines from 1.

    Empty lines are passed over.

    Args:
        path: of the file.
        key: what every object must have.
        remedy: what to do where one lacks it, for the message.
        kinds: of the values of some keys.

    Raises:
        InputError: the file cannot be read; a line is no JSON object, or lacks the key; a key is
            there twice or has a value of the wrong kind. The message gives the number of the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Write it again as UTF-8") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _object(f"{path}, line {number}", line, key, remedy, kinds)


def _object(
    where: str, line: str, key: str, remedy: str, kinds: Mapping[str, Kind]
) -> dict[str, Any]:
    try:
        entry = json.loads(line, object_pairs_hook=unique)
        json.dumps(entry, ensure_ascii=False).encode()  # fails for half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no sound JSON ({error}); write one object a line") from error
    if not isinstance(entry, dict) or key not in entry:
        raise InputError(f"{where}: {line.strip()[:80]} is no object with {key}; {remedy}")
    for name, kind in kinds.items():
        if name in entry and not kind.accepts(entry[name]):
            raise InputError(f"{where}: {name} is {entry[name]!r}; give {kind.words}")
    return entry
