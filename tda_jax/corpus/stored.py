"""Rows of a TFDS dataset (array_record, without TensorFlow), read by position."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tda_jax import places
from tda_jax.columns import ahead
from tda_jax.errors import InputError
from tda_jax.places import Place

AT_A_TIME = 64  # rows in memory

Stored = Mapping[str, Any]  # a row as TFDS gives it
Read = Callable[[np.ndarray], list[Stored]]  # positions -> rows, in that order


def is_dataset(folder: Place) -> bool:
    """Whether a folder holds a dataset, and not arrays."""
    return places.exists(folder / "dataset_info.json")


def opened(folder: Place) -> Any:
    """The builder of a dataset, which knows its features and splits.

    Raises:
        InputError: there is no dataset.
    """
    if not is_dataset(folder):
        raise InputError(f"{folder}: no dataset there; give the folder with dataset_info.json")
    try:
        return tfds.builder_from_directory(str(folder))
    except ImportError as error:
        raise InputError(f"{folder}: {error}; pip install 'tda_jax[gcs]' brings it") from error
    except Exception as error:  # of features that this TFDS does not know, or of damaged JSON
        raise InputError(
            f"{folder}: TFDS cannot open it ({error}); write it again, with Tensors, texts and "
            "numbers as its features"
        ) from error


def reader(folder: Place, builder: Any, splits: Sequence[str]) -> tuple[Read, list[int]]:
    """Positions, in the order of some splits, -> their rows; and how many each split has.

    Raises:
        InputError: they cannot be opened; and when rows are read, if they cannot be.
    """
    try:
        sources = [builder.as_data_source(split=split) for split in splits]
    except NotImplementedError as error:  # of files that have no random access
        raise InputError(
            f"{folder}: cannot be read by position ({error}). Write it with "
            'file_format="array_record", or convert it with tfds.file_adapters'
        ) from error
    lengths = [len(source) for source in sources]
    starts = np.cumsum([0, *lengths])

    def read(rows: np.ndarray) -> list[Stored]:
        found: list[Any] = [None] * len(rows)
        for split, source, start, stop in zip(splits, sources, starts, starts[1:], strict=False):
            own = np.flatnonzero((start <= rows) & (rows < stop))
            if not len(own):
                continue
            try:
                some = source.__getitems__((rows[own] - start).tolist())
            except Exception as error:  # array_record and protobuf have no errors of their own
                files = _files_of(builder.info.splits[split], rows[own] - start)
                raise InputError(
                    f"{folder}: {' and '.join(files)} cannot be read ({error}). Restore what is "
                    "damaged or cut short, or make the dataset again"
                ) from error
            for i, row in zip(own, some, strict=True):
                found[i] = row
        return found

    return read, lengths


def in_order(read: Read, n: int) -> Iterator[Stored]:
    """The first n rows, the next ones read by a thread while some are used."""
    for _, some in ahead(read, np.split(np.arange(n), range(AT_A_TIME, n, AT_A_TIME))):
        yield from some


def remembered(read: Read) -> Read:
    """The same, with what was asked for last kept: parts of a block are asked for in turn."""
    latest = lru_cache(maxsize=1)(lambda rows: read(np.frombuffer(rows, np.int64)))
    return lambda rows: latest(rows.astype(np.int64).tobytes())


def text(value: bytes) -> str:
    """A string as TFDS gives it.

    Raises:
        InputError: it is no UTF-8.
    """
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the text {value[:80]!r} is no UTF-8; write it again") from error


def _files_of(split: Any, rows: np.ndarray) -> list[str]:
    """Names of the files that hold some rows of a split."""
    ends = np.cumsum(split.shard_lengths)
    return [split.filenames[i] for i in np.unique(np.searchsorted(ends, rows, side="right"))]
