"""Arrays of tracks on disk: a field is a folder of `<id>.npy` files or one `.npz` keyed by id.

Headers are read first, so that what cannot be used is refused before any array is.
"""

import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import ml_dtypes
import numpy as np

from tda_jax.columns import Column
from tda_jax.errors import InputError

_HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
SHOWN = 5  # ids that a message names; the rest are counted
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Field(NamedTuple):
    """What a field's headers say.

    Attributes:
        place: its folder, or its `.npz` file.
        shape: of each track's array.
        dtype: that holds every track's values; floats of 16 bits are held as float32.
        ids: the tracks.
    """

    place: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    ids: frozenset[str]


class _File(NamedTuple):
    """One `.npy`, on disk or within an archive, and its size in bytes."""

    open: Callable[[], IO[bytes]]
    size: int


def find(folder: Path, name: str) -> Path | None:
    """Where a field lies, or None where it is absent.

    Raises:
        InputError: it is there both as a folder and as a file.
    """
    places = [p for p in (folder / name, folder / f"{name}.npz") if p.exists()]
    if len(places) > 1:
        raise InputError(f"{folder}: {name}/ and {name}.npz are both there; keep one of them")
    if places and places[0].suffix != ".npz" and not places[0].is_dir():
        raise InputError(f"{places[0]}: is no folder; give a folder of .npy files, or {name}.npz")
    return places[0] if places else None


def read_headers(place: Path) -> Field:
    """Reads the shapes and dtypes of a field, and no array.

    Raises:
        InputError: a file is unreadable, cut off, or of Python objects or records; the shapes
            differ, or have an axis of length 0; there is no array, or one twice.
    """
    headers = {name: _header(place, name, file) for name, file in _files(place).items()}
    if not headers:
        raise InputError(f"{place}: holds no arrays; give one .npy for each track")
    usual = Counter(shape for shape, _ in headers.values()).most_common(1)[0][0]
    odd = sorted(name for name, (shape, _) in headers.items() if shape != usual)
    if odd:
        shown = ", ".join(f"{name!r} has {headers[name][0]}" for name in odd[:SHOWN])
        raise InputError(
            f"{place}: {len(odd)} of {len(headers)} arrays are not of the shape {usual} of the "
            f"others: {shown}. Pad or cut them, or leave them out"
        )
    if 0 in usual:
        raise InputError(f"{place}: its arrays have the shape {usual}; give axes of 1 or more")
    kinds = {held(dtype.newbyteorder("=")) for _, dtype in headers.values()}
    return Field(place, usual, np.result_type(*kinds), frozenset(headers))


def held(dtype: np.dtype) -> np.dtype:
    """The dtype in which stored values are held."""
    return np.dtype(np.float32) if dtype in _HALVES else dtype


def column(field: Field, ids: Sequence[str]) -> Column:
    """The arrays of some tracks, in their order and in the field's dtype; none is read yet.

    Args:
        field: from `read_headers`.
        ids: tracks of the field.

    Raises:
        InputError: the field cannot be opened; and when rows are read, if one of them cannot be,
            or has changed since its header was read.
    """
    files = _files(field.place)
    chosen = [files[name] for name in ids]

    def read(rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *field.shape), field.dtype)
        for row, i in zip(out, rows, strict=True):
            with _reading(f"{field.place}: {ids[i]!r}"), chosen[i].open() as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
                if array.shape != field.shape:
                    raise ValueError(f"its shape is {array.shape} now, {field.shape} before")
                row[...] = array.view(_meant(array.dtype))
        return out

    return Column((len(ids), *field.shape), field.dtype, read)


def _files(place: Path) -> Mapping[str, _File]:
    """The arrays of a field by id; an archive stays open as long as one of them is known."""
    if place.is_dir():
        with _reading(f"{place}"):
            return _folder_files(place)
    try:
        archive = zipfile.ZipFile(place)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{place}: no sound npz file ({error}). Write it again") from error
    files = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in files or name == info.filename:
            raise InputError(
                f"{place}: member {info.filename!r} is no .npy, or is there twice; "
                "write it with numpy.savez, with the ids as keys"
            )
        files[name] = _File(partial(archive.open, info), info.file_size)
    return files


def _folder_files(place: Path) -> dict[str, _File]:
    """The `.npy` files below a folder; hidden ones, which systems leave about, do not count."""
    files = {}

    def refuse(error: OSError) -> None:
        raise error  # os.walk would pass over a folder that it cannot read

    for folder, _, names in os.walk(place, onerror=refuse, followlinks=True):
        for name in names:
            path = Path(folder, name)
            if path.suffix == ".npy" and not name.startswith("."):
                key = path.relative_to(place).as_posix().removesuffix(".npy")
                files[key] = _File(partial(path.open, "rb"), path.stat().st_size)
    return files


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{what} cannot be read ({error}). Write it again with numpy.save"
        ) from error


def _header(place: Path, name: str, file: _File) -> tuple[tuple[int, ...], np.dtype]:
    with _reading(f"{place}: {name!r}"), file.open() as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the npy format")
        shape, _, dtype = _HEADERS[version](stream)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which only pickle could read")
        meant, needed = _meant(dtype), stream.tell() + math.prod(shape) * dtype.itemsize
        if (meant.kind not in "biuf" or meant.itemsize > 8) and meant not in _HALVES:
            raise ValueError(f"it is of dtype {dtype}, no real number of at most 64 bits")
        if file.size < needed:
            raise ValueError(f"it is cut off: {file.size} of {needed} bytes")
    return shape, meant


def _meant(dtype: np.dtype) -> np.dtype:
    """The dtype that was saved: npy files know bfloat16 only as two bytes without a meaning."""
    nameless = dtype.kind == "V" and dtype.names is None and dtype.itemsize == 2
    return np.dtype(ml_dtypes.bfloat16) if nameless else dtype
