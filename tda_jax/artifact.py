"""One tree of arrays in one safetensors file, with what it was made from; whole or not there.

A path is a folder's or a bucket's, see `places`.
"""

import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Array, Shaped
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import load_file, save_file
from safetensors.numpy import save as save_bytes

from tda_jax import fingerprint, places
from tda_jax.errors import InputError
from tda_jax.places import Place

_FORMAT = "tda_jax.artifact 1"
_DTYPES = {"bool", "float16", "bfloat16", "float32", "float64", "complex64"}
_DTYPES |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_KINDS = {"BOOL": np.dtype(bool), "BF16": np.dtype(ml_dtypes.bfloat16), "C64": np.dtype("c8")}
_KINDS |= {f"{k.upper()}{8 * n}": np.dtype(f"<{k}{n}") for k in "iu" for n in (1, 2, 4, 8)}
_KINDS |= {f"F{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)}
_PART = ".part"  # the ending of a file that is being written
_AGAIN = "Delete it and make it again"
_SIZE, _LONGEST = 8, 10**8  # bytes of a header's length, and of a header
_ABSENT = "{}: no such file; make the artifact first, or mend the path"

Values = Shaped[np.ndarray, "..."] | Shaped[Array, "..."]


def save(
    path: Place, arrays: Mapping[str, Values], made_of: Mapping[str, Any], notes: Mapping[str, Any]
) -> None:
    """Writes arrays under their names, in place of what was there.

    Args:
        path: the file; its folder is made where it is missing.
        arrays: of any shape; bools, integers, floats of 16 to 64 bits, complex64.
        made_of: what decides the arrays, which `load` compares. Anything that JSON keeps.
        notes: what else is worth keeping, likewise.

    Raises:
        InputError: an array's dtype, `made_of` or `notes` cannot be kept; the disk, or the bucket,
            refuses.
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
    head["sha256"] = _sum(head, found)
    if places.is_url(path):
        places.write(path, save_bytes(found, head))
        return
    with whole_file(path) as part:
        try:
            save_file(found, part, head)
        except SafetensorError as error:  # the disk's errors among them
            raise OSError(str(error)) from error


def load(path: Place, made_of: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays and notes of an artifact, if it was made from what is named.

    Raises:
        InputError: there is no such file; it was made from something else (the message says which
            entries differ, and shows both); it is damaged, cut off or no artifact.
    """
    remote = places.is_url(path)
    content = _read(path) if remote else b""
    head = _checked(path, _head_of(path, content) if remote else _head_in(path))
    _refuse_other(path, head, made_of)
    try:
        arrays = _arrays_in(content) if remote else load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}). {_AGAIN}") from error
    if _sum(head, arrays) != head["sha256"]:
        raise InputError(f"{path}: damaged, it does not hold what was written. {_AGAIN}")
    return arrays, json.loads(head["notes"])


def notes_of(path: Place, made_of: Mapping[str, Any]) -> dict[str, Any]:
    """The notes of an artifact, if it was made from what is named; no array is read.

    Raises:
        InputError: there is no such file; it was made from something else (the message says which
            entries differ, and shows both); it is cut off or no artifact.
    """
    head = _head(path)
    _refuse_other(path, head, made_of)
    return json.loads(head["notes"])


def describe(path: Place) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an artifact says it was made from, and its notes; no array is read.

    Raises:
        InputError: there is no such file; it is cut off or no artifact.
    """
    head = _head(path)
    return json.loads(head["made_of"]), json.loads(head["notes"])


def claim(path: Place, made_of: Mapping[str, Any], remedy: str) -> None:
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
    if not places.exists(path):
        if others := [p.name for p in places.listed(path.parent, ".json")]:
            raise InputError(
                f"{path.parent}: holds results of something else already, such as {others[0]}. "
                f"{remedy}"
            )
        with whole_file(path) as part:
            part.write_text(json.dumps(here, indent=2) + "\n", encoding="utf-8")
        return
    try:
        there = json.loads(places.read(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); delete {path.parent}") from error
    fingerprint.refuse_other(str(path.parent), there, here, remedy)


@contextmanager
def whole_file(path: Place) -> Iterator[Path]:
    """Gives a path to write to; only a whole file gets its name, in place of what was there.

    Raises:
        InputError: the disk, or the bucket, refuses.
    """
    try:
        with _whole_object(path) if places.is_url(path) else _renamed(path) as part:
            yield part
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error}); free space, or mend its permissions"
        ) from error


@contextmanager
def _whole_object(path: Place) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / path.name
        yield part
        places.write(path, part.read_bytes())


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PART}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _to_disk(part)
        part.replace(path)
        _to_disk(path.parent)
    finally:
        with suppress(OSError):  # it is gone, or was never there
            part.unlink()


def sweep(folder: Place, pattern: str = "*") -> None:
    """Deletes what a kill left of files that were being written; only while nobody writes there.

    In a bucket it leaves nothing.

    Args:
        folder: where `whole_file` wrote, or above.
        pattern: of the files' paths below it, without their endings.
    """
    if places.is_url(folder):
        return
    for part in folder.glob(f"{pattern}{_PART}"):
        with suppress(OSError):  # then it stays, and harms nothing
            part.unlink()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse_other(path: Place, head: Mapping[str, str], made_of: Mapping[str, Any]) -> None:
    there = json.loads(head["made_of"])
    remedy = "Give another path, or delete the file to make it again"
    fingerprint.refuse_other(str(path), there, fingerprint.plain(made_of, "made_of"), remedy)


def _head(path: Place) -> dict[str, str]:
    """The header of an artifact; of a bucket no more is read than that."""
    if not places.is_url(path):
        return _checked(path, _head_in(path))
    first = _read(path, 0, _SIZE)
    length = int.from_bytes(first, "little")
    if length > _LONGEST:
        raise InputError(f"{path}: damaged or no artifact, a header of {length} bytes. {_AGAIN}")
    return _checked(path, _head_of(path, first + _read(path, _SIZE, _SIZE + length)))


def _read(path: Place, *some: int) -> bytes:
    try:
        return places.read(path, *some)
    except FileNotFoundError as error:
        raise InputError(_ABSENT.format(path)) from error
    except EOFError as error:
        raise InputError(f"{path}: damaged or no artifact ({error}). {_AGAIN}") from error


def _head_of(path: Place, content: bytes) -> dict[str, str]:
    """What a file of these bytes says of itself: eight of a length, and so many of JSON."""
    length = int.from_bytes(content[:_SIZE], "little")
    try:
        return dict(json.loads(content[_SIZE : _SIZE + length])["__metadata__"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: damaged or no artifact ({error}). {_AGAIN}") from error


def _arrays_in(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a file of these bytes, with dtypes that `safetensors.numpy.load` lacks."""
    return {
        name: np.frombuffer(x["data"], _KINDS[x["dtype"]]).reshape(x["shape"])
        for name, x in deserialize(content)
    }


def _head_in(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(_ABSENT.format(path))
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged or no artifact ({error}). {_AGAIN}") from error


def _checked(path: Place, head: dict[str, str]) -> dict[str, str]:
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
