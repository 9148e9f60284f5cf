"""Fingerprints: short names for what an artifact was made from, equal only if that was equal."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tda_jax.errors import InputError


def of_text(*parts: str) -> str:
    """One sha256, in hexadecimal, over strings in their order."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def of_files(files: Sequence[Path], memo: Path | None = None) -> str:
    """One sha256, in hexadecimal, over the names and contents of files.

    Neither their folders nor their order count.

    Args:
      files: the files, one at least.
      memo: a JSON file that keeps each file's hash by its path, size, time of change and inode, so
        that gigabytes are not read again at every start, as git's index does.

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
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    key = str(path.resolve())
    if key not in known or known[key]["stamp"] != stamp:
        with path.open("rb") as f:
            known[key] = {"stamp": stamp, "sha256": hashlib.file_digest(f, "sha256").hexdigest()}
    return stat.st_size, known[key]["sha256"]


def _read_memo(memo: Path | None) -> dict[str, dict]:
    if memo is None or not memo.exists():
        return {}
    try:
        return json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{memo}: is no memo of hashes ({error}); delete it") from error


def _write_memo(memo: Path, known: dict[str, dict]) -> None:
    memo.parent.mkdir(parents=True, exist_ok=True)
    part = memo.with_name(f"{memo.name}.{os.getpid()}.part")
    part.write_text(json.dumps(known, indent=1), encoding="utf-8")
    part.replace(memo)
