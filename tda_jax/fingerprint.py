"""Fingerprints: short names for what an artifact was made from, equal only if that was equal."""

import hashlib
import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from tda_jax.errors import InputError

_SETTLED_NS = 2 * 10**9


def of_text(*parts: str) -> str:
    """One sha256, in hexadecimal, over strings in their order."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


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
