"""One tree of arrays in one safetensors file, with what it was made from; whole or not there."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from tda_jax import fingerprint
from tda_jax.errors import InputError

_FORMAT = "tda_jax.artifact 1"
_DTYPES = {"bool", "float16", "bfloat16", "float32", "float64", "complex64"}
_DTYPES |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_PART = ".part"  # the ending of a file that is being written
_AGAIN = "Delete it and make it again"

Values = Shaped[np.ndarray, "..."] | Shaped[Array, "..."]


def save(
    path: Path, arrays: Mapping[str, Values], made_of: Mapping[str, Any], notes: Mapping[str, Any]
) -> None:
    """Writes arrays under their names, in place of what was there.

    Args:
        path: the file; its folder is made where it is missing.
        arrays: of any shape; bools, integers, floats of 16 to 64 bits, complex64.
        made_of: what decides the arrays, which `load` compares. Anything that JSON keeps.
        notes: what else is worth keeping, likewise.

    Raises:
        InputError: an array's dtype, `made_of` or `notes` cannot be kept; the disk refuses.
    """
    found = {name: np.asarray(x, order="C") for name, x in arrays.items()}
    for name, x in found.items():
        if x.dtype.name not in _DTYPES or name == "__metadata__":
            raise InputError(f"{path}: no artifact holds {x.dtype.name} {name!r}; cast or rename")
    head = {
        "format": _FORMAT,
        "made_of": json.dumps(fingerprint.plain(made_of, "made_of")),
        "notes": json.dumps(fingerprint.plain(notes, "notes")),
    }
    head["head_sha256"] = _head_sum(head)
    with whole_file(path) as part:
        try:
            save_file(found, part, {**head, "sha256": _sum(head, found)})
        except SafetensorError as error:  # the disk's errors among them
            raise OSError(str(error)) from error


def load(path: Path, made_of: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and notes of an artifact, if it was made from what is named.

    Raises:
        InputError: there is no such file; it was made from something else (the message says which
            entries differ, and shows both); it is damaged, cut off or no artifact.
    """
    head = refuse_other(path, made_of)
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}). {_AGAIN}") from error
    if _sum(head, arrays) != head["sha256"]:
        raise InputError(f"{path}: damaged, it does not hold what was written. {_AGAIN}")
    return arrays, json.loads(head["notes"])


def refuse_other(path: Path, made_of: Mapping[str, Any]) -> dict[str, str]:
    """Refuses an artifact that was not made from what is named; no array is read.

    Returns:
        Its header.

    Raises:
        InputError: there is no such file; it was made from something else (the message says which
            entries differ, and shows both); it is cut off or no artifact.
    """
    head = _head(path)
    there = json.loads(head["made_of"])
    remedy = "Give another path, or delete the file to make it again"
    fingerprint.refuse_other(str(path), there, fingerprint.plain(made_of, "made_of"), remedy)
    return head


def describe(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an artifact says it was made from, and its notes; no array is read.

    Raises:
        InputError: there is no such file; it is cut off or no artifact.
    """
    head = _head(path)
    return json.loads(head["made_of"]), json.loads(head["notes"])


def claim(path: Path, made_of: Mapping[str, Any], remedy: str) -> None:
    """Says in a folder what is made there, before the work; refuses a folder of something else.

    Args:
        path: a JSON file in the folder; it is written if it is not there.
        made_of: what decides what is made. Anything that JSON keeps.
        remedy: what to do where the folder is of something else, as `fingerprint.refuse_other`
            takes it.

    Raises:
        InputError: the folder is of something else (the message says which entries differ), or
            holds other JSON files and no such one; the file is damaged; the disk refuses.
    """
    here = fingerprint.plain(made_of, "made_of")
    if not path.exists():
        if others := sorted(p.name for p in path.parent.glob("*.json")):
            raise InputError(
                f"{path.parent}: holds results of something else already, such as {others[0]}. "
                f"{remedy}"
            )
        with whole_file(path) as part:
            part.write_text(json.dumps(here, indent=2) + "\n", encoding="utf-8")
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); delete {path.parent}") from error
    fingerprint.refuse_other(str(path.parent), there, here, remedy)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path to write to; only a whole file gets its name, in place of what was there.

    Raises:
        InputError: the disk refuses.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _to_disk(part)
        part.replace(path)
        _to_disk(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error}); free space, or mend its permissions"
        ) from error
    finally:
        with suppress(OSError):  # it is gone, or was never there
            part.unlink()


def sweep(folder: Path, pattern: str = "*") -> None:
    """Deletes what a kill left of files that were being written; only while nobody writes there.

    Args:
        folder: where `whole_file` wrote, or above.
        pattern: of the files' paths below it, without their endings.
    """
    for part in folder.glob(f"{pattern}{_PART}"):
        with suppress(OSError):  # then it stays, and harms nothing
            part.unlink()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _head(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; make the artifact first, or mend the path")
    try:
        with safe_open(path, framework="numpy") as file:
            head = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged or no artifact ({error}). {_AGAIN}") from error
    if head.get("format") != _FORMAT:
        raise InputError(
            f"{path}: no artifact, its format is {head.get('format')!r} and not {_FORMAT!r}. "
            "Give a file that `artifact.save` wrote, or make it again"
        )
    whole = head.keys() >= {"made_of", "notes", "sha256", "head_sha256"}
    if not whole or _head_sum(head) != head["head_sha256"]:
        raise InputError(f"{path}: damaged in its header. {_AGAIN}")
    return head


def _head_sum(head: Mapping[str, str]) -> str:
    return fingerprint.of_text(head["made_of"], head["notes"])


def _sum(head: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    parts = [_head_sum(head)]
    for name, x in sorted(arrays.items()):
        parts += [name, x.dtype.name, str(x.shape), fingerprint.of_array(x)]
    return fingerprint.of_text(*parts)
