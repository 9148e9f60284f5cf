"""Fingerprints: short names for what an artifact was made from, equal only if that was equal."""

import ast
import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Shaped

from tda_jax.errors import InputError

_SETTLED_NS = 2 * 10**9
_SHOWN = 8  # differences that a message names; the rest are counted


def of_text(*parts: str) -> str:
    """One sha256, in hexadecimal, over strings in their order."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def of_array(array: Shaped[Array, "..."] | Shaped[np.ndarray, "..."]) -> str:
    """One sha256, in hexadecimal, over an array's elements: little-endian bytes, in C order.

    Neither shape nor dtype counts; name them beside it.
    """
    array = np.asarray(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).hexdigest()


def of_code(*modules: str, package: Path = Path(__file__).parent) -> str:
    """One sha256, in hexadecimal, over the sources of modules and of all that they import here.

    Only the sources that a module needs count, so that a change to a report invalidates no sweep.

    Args:
      modules: full names, such as `__name__`, of this package.
      package: the package's folder; by default this package's.

    Raises:
      InputError: a module has no source there, or one cannot be read.
    """
    files, todo = set(), [_sources(name, package) for name in modules]
    if missing := [name for name, found in zip(modules, todo, strict=True) if not found]:
        raise InputError(f"{package}: no source of {missing}; install the package with its sources")
    while todo:
        for file in todo.pop():
            if file not in files:
                files.add(file)
                todo += [_sources(name, package) for name in _imports(file.read_bytes())]
    ordered = sorted(files)
    return of_text(*(f"{f.relative_to(package).as_posix()} {of_files([f])}" for f in ordered))


def _sources(name: str, package: Path) -> list[Path]:
    """The files of a module by its full name: its own, and those of the packages around it."""
    parts = name.split(".")
    if parts[0] != package.name:
        return []
    found, place = [], package
    for i, part in enumerate(parts):
        place = place / part if i else package
        found += [f for f in (place / "__init__.py", place.with_suffix(".py")) if f.is_file()]
    return found


@lru_cache(maxsize=1024)  # by what the file says: parsing takes a second of every run
def _imports(source: bytes) -> list[str]:
    """Every module that a source imports; of `from a import b` both a and a.b."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def versions() -> dict[str, str]:
    """The versions of the libraries that compute, by name."""
    return {name: metadata.version(name) for name in ("flax", "jax", "jaxlib", "numpy", "optax")}


def plain(value: Any, name: str) -> Any:
    """A copy of a value that JSON gives back as it is: tuples become lists.

    Args:
      value: strings, numbers, bools, None, and lists and mappings of such.
      name: what to call the value in an error.

    Raises:
      InputError: a part of it is something else, or a mapping has a key that is no string.
    """
    if isinstance(value, Mapping):
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            raise InputError(f"{name} has the key {odd[0]!r}, which is no string; name it")
        return {key: plain(part, f"{name}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part, f"{name}[{i}]") for i, part in enumerate(value)]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise InputError(
        f"{name} is {value!r} of type {type(value).__name__}, which JSON does not keep; "
        "give strings, numbers, bools, None, or lists and mappings of them"
    )


def refuse_other(place: str, there: Any, here: Any, remedy: str) -> None:
    """Refuses what was made from something else, and says which entries differ.

    Args:
      place: the path of what was found, for the message.
      there: what that was made from, as `plain` gives it.
      here: what it should have been made from, likewise.
      remedy: what to do, for the message.

    Raises:
      InputError: an entry differs or is on one side only. Numbers differ if they are written
        differently: 1 is not 1.0.
    """
    left, right = dict(_leaves(there)), dict(_leaves(here))
    paths = [*left, *(path for path in right if path not in left)]
    differing = [path for path in paths if left.get(path) != right.get(path)]
    if not differing:
        return
    shown = [
        f"{'.'.join(path)} is {left.get(path, 'absent')} there and {right.get(path, 'absent')} here"
        for path in differing[:_SHOWN]
    ]
    more = len(differing) - len(shown)
    tail = f"; and {more} more" if more else ""
    raise InputError(f"{place}: made from something else: {'; '.join(shown)}{tail}. {remedy}")


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Path and JSON text of each leaf; lists and empty mappings are leaves."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, json.dumps(tree)


def of_files(files: Sequence[Path], memo: Path | None = None) -> str:
    """One sha256, in hexadecimal, over the names and contents of files.

    Neither their folders nor their order count.

    Args:
      files: the files, one at least.
      memo: a JSON file that keeps each file's hash by its path, size, times of change and inode,
        so that gigabytes are not read again at every start. Files that changed within the last
        seconds are not kept, since a further change might not show in their times. A memo that
        cannot be read counts as empty.

    Raises:
      InputError: there is no file, or one cannot be read.
    """
    if not files:
        raise InputError("fingerprint of no files; give the files that an artifact was made from")
    known = _read_memo(memo)
    lines = []
    for path in files:
        try:
            lines.append([path.name, *_size_and_hash(path, known)])
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); restore it or its permissions"
            ) from error
    if memo is not None:
        _write_memo(memo, known)
    return hashlib.sha256(json.dumps(sorted(lines)).encode()).hexdigest()


def _size_and_hash(path: Path, known: dict[str, dict]) -> tuple[int, str]:
    """The size and sha256 of a file; the hash from `known` while the file's stamp is the same."""
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    key = str(path.resolve())
    if key in known and known[key].get("stamp") == stamp and "sha256" in known[key]:
        return stat.st_size, known[key]["sha256"]
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    known.pop(key, None)
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS:
        known[key] = {"stamp": stamp, "sha256": digest}
    return stat.st_size, digest


def _read_memo(memo: Path | None) -> dict[str, dict]:
    if memo is None or not memo.exists():
        return {}
    try:
        known = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    kept = known if isinstance(known, dict) else {}
    return {key: entry for key, entry in kept.items() if isinstance(entry, dict)}


def _write_memo(memo: Path, known: dict[str, dict]) -> None:
    memo.parent.mkdir(parents=True, exist_ok=True)
    part = memo.with_name(f"{memo.name}.{uuid.uuid4().hex}.part")
    part.write_text(json.dumps(known, indent=1), encoding="utf-8")
    part.replace(memo)
