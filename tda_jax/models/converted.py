"""Converted copies of checkpoints, so that the next start skips reading and turning torch weights.

A copy is kept under a fingerprint of everything it was made from; another checkpoint, another LoRA
or another version of the conversion never meets it.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

# Raise by one whenever the same files would give other parameters.
CONVERSION = 1


def content_hash(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def text_hash(*parts: str) -> str:
    """One sha256 over strings."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def fingerprint(files: Sequence[Path], memo: Path | None = None) -> str:
    """One sha256 over the names and contents of files, whatever folder they lie in.

    Args:
      files: the files; their order does not matter.
      memo: a JSON file that remembers the hash of each file by path, size and time of change, so
        that gigabytes are not read again; as git's index does.
    """
    known = json.loads(memo.read_text()) if memo is not None and memo.exists() else {}
    total = hashlib.sha256()
    for path in sorted(files, key=lambda p: (p.parent.name, p.name)):
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        entry = known.get(str(path.resolve()))
        if entry is None or entry["stamp"] != stamp:
            entry = known[str(path.resolve())] = {"stamp": stamp, "sha256": content_hash(path)}
        total.update(f"{path.parent.name}/{path.name}\0{entry['sha256']}\0".encode())
    if memo is not None:
        memo.parent.mkdir(parents=True, exist_ok=True)
        part = memo.with_name(f"{memo.name}.{os.getpid()}.part")
        part.write_text(json.dumps(known, indent=1))
        part.replace(memo)
    return total.hexdigest()


def _checkpointer() -> ocp.Checkpointer:
    # Trained weights do not compress: compression would cost seconds and save nothing.
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False))


def _folder(cache: Path, key: str) -> Path:
    return cache.absolute() / text_hash(key, str(CONVERSION))[:32]


def restore(cache: Path, key: str, shapes: Any) -> Any | None:
    """The parameters kept under a fingerprint, or None where there are none."""
    folder = _folder(cache, key)
    if not folder.exists():
        return None
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), shapes)
    how = ocp.checkpoint_utils.construct_restore_args(target)
    with _checkpointer() as checkpointer:
        return checkpointer.restore(
            folder, args=ocp.args.PyTreeRestore(item=target, restore_args=how)
        )


def keep(cache: Path, key: str, params: Any) -> None:
    """Keeps parameters; Orbax renames a whole copy into place, so half a one is never found."""
    with _checkpointer() as checkpointer:
        checkpointer.save(_folder(cache, key), args=ocp.args.PyTreeSave(params))
