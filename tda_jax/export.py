"""Results as tables, a row for each track: CSV for people, Parquet for programs."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Shaped
from pyarrow import parquet

from tda_jax.artifact import whole_file
from tda_jax.errors import InputError
from tda_jax.places import Place

_PREFIX = "meta_"
_INT64 = range(-(2**63), 2**63)

Column = Sequence[Any] | Shaped[np.ndarray, " rows"]
Columns = Mapping[str, Column]


def with_metadata(columns: Columns, metadata: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """Columns of results with a column for every key of the metadata after them, by name.

    A key that a result has as well gets the prefix `meta_`. A row without a key has None there.

    Args:
        columns: results by name, each with n values.
        metadata: n mappings, in the order of the rows.

    Raises:
        InputError: the columns and the metadata are not of one length.
    """
    table: dict[str, Column] = dict(columns)
    _rows({**columns, "(metadata)": metadata})
    keys = {key for entry in metadata for key in entry}
    for key in sorted(keys):
        name = key
        while name in table or (name != key and name in keys):
            name = _PREFIX + name
        table[name] = [entry.get(key) for entry in metadata]
    return table


def write_csv(path: Place, columns: Columns) -> None:
    """Writes a table as UTF-8 CSV with a line of names, in place of what was there.

    Numbers are written so that reading them as float64 gives them back exactly; nan and None are
    empty, infinities `inf`, bools `true` and `false`, lists and mappings JSON.

    Args:
        path: the file; its folder is made where it is missing.
        columns: values by name, all of one length.

    Raises:
        InputError: there is no column, or they are not of one length, or not of one axis; a value
            is none of these; the disk refuses.
    """
    rows = _rows(columns)
    cells = [[_cell(name, value) for value in _listed(column)] for name, column in columns.items()]
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([column[i] for column in cells] for i in range(rows))


def write_parquet(path: Place, columns: Columns) -> None:
    """Writes a table as Parquet, in place of what was there.

    Arrays keep their dtype, except that floats of 16 bits become float32. A list is a column of
    bools, 64-bit integers, float64 or strings if all its values are, and None is null; any other
    list becomes the strings that `write_csv` would write.

    Args:
        path: the file; its folder is made where it is missing.
        columns: values by name, all of one length.

    Raises:
        InputError: see `write_csv`.
    """
    _rows(columns)
    table = pa.table({name: _arrow(name, column) for name, column in columns.items()})
    with whole_file(path) as part:
        parquet.write_table(table, part)


def _rows(columns: Mapping[str, Any]) -> int:
    """How many rows all columns have."""
    lengths = {}
    for name, column in columns.items():
        if isinstance(column, str) or getattr(column, "ndim", 1) != 1:
            raise InputError(f"column {name!r} is not of one axis; give a value for each row")
        lengths[name] = len(column)
    if len(set(lengths.values())) != 1:
        raise InputError(f"columns of the lengths {lengths}; give at least one, all of one length")
    return next(iter(lengths.values()))


def _listed(column: Column) -> list[Any]:
    """The values as Python's own."""
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def _cell(name: str, value: Any) -> str:
    """A value as text. A float's is the shortest that gives it back, which repr is."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"column {name!r} holds {value!r}, which no table does ({error}); give text, numbers, "
            "bools, None, or lists and mappings of them"
        ) from error


def _is_numbers(dtype: np.dtype) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, np.bool_))


def _arrow(name: str, column: Column) -> pa.Array:
    if isinstance(column, np.ndarray) and _is_numbers(column.dtype):
        small = jnp.issubdtype(column.dtype, jnp.floating) and column.dtype.itemsize < 4
        return pa.array(column.astype(np.float32) if small else column)
    values = [v.item() if isinstance(v, np.generic) else v for v in _listed(column)]
    kinds = {type(value) for value in values if value is not None}
    whole = [value for value in values if type(value) is int]
    if kinds == {int} and all(value in _INT64 for value in whole):
        return pa.array(values, pa.int64())
    if float in kinds and kinds <= {int, float} and all(abs(value) <= 2**53 for value in whole):
        return pa.array(values, pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    return pa.array([None if v is None else _cell(name, v) for v in values], pa.string())
