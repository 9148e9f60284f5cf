"""Arrays whose rows are read when they are asked for: corpora that do not fit into memory.

A `Column` stands where an array with a leading axis of tracks would. As a leaf of a tree it is
indexed as that array would be, and what comes out is in memory: work that takes a corpus block by
block never holds more of it than two blocks, the one at hand and the next, which a thread reads.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Shaped

_BLOCK = 2**24  # bytes of a block of rows

Item, Value = TypeVar("Item"), TypeVar("Value")
Rows = Callable[[np.ndarray], np.ndarray]  # positions -> their rows, in that order


@dataclass(frozen=True, eq=False)
class Column:
    """An array (n, ...) that is elsewhere.

    Attributes:
        shape: of the whole.
        dtype: of its values.
        read: whole numbers 0 .. n-1, one at least, in any order -> their rows. Threads call it.
        touched: bytes that are in memory while a row is read, where they are more than the row:
            it may lie in a record beside much else.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Rows
    touched: int = 0

    @property
    def ndim(self) -> int:
        """Axes, the first of which is n."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Some rows, in memory: by a position, a slice, or an array of either positions or bools.

        Raises:
            IndexError: there is no such row.
        """
        wanted = np.arange(len(self))[rows]
        found = np.empty((wanted.size, *self.shape[1:]), self.dtype)
        size = _rows_of_a_block([self])
        for start in range(0, wanted.size, size):
            found[start : start + size] = self.read(wanted.reshape(-1)[start : start + size])
        return found.reshape(*wanted.shape, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows, in memory."""
        del copy  # it always is one
        return np.asarray(self[:], dtype)


Array = Shaped[np.ndarray, "..."] | Column


def as_array(x: Any) -> Any:
    """A column as it is, anything else as a numpy array."""
    return x if isinstance(x, Column) else np.asarray(x)


def in_memory(data: Any) -> Any:
    """A tree with its columns read."""
    return jax.tree.map(lambda x: x[:] if isinstance(x, Column) else x, data)


def taken(x: Any, rows: np.ndarray) -> Any:
    """The rows at some positions, in that order; of a column nothing is read yet."""
    if not isinstance(x, Column):
        return x[rows]
    shape = (len(rows), *x.shape[1:])
    return Column(shape, x.dtype, lambda some: x.read(rows[some]), x.touched)


def mapped(change: Callable[[np.ndarray], np.ndarray], x: Any) -> Any:
    """`change` of each block of rows, which must keep their number; of a column, as it is read."""
    if not isinstance(x, Column):
        return change(x)
    like = change(np.empty((0, *x.shape[1:]), x.dtype))
    shape = (len(x), *like.shape[1:])
    return Column(shape, like.dtype, lambda rows: change(x.read(rows)), max(x.touched, _row(x)))


def ahead(read: Callable[[Item], Value], items: Iterable[Item]) -> Iterator[tuple[Item, Value]]:
    """Each item with what is read for it; a thread reads the next while one is used.

    Raises:
        Exception: whatever `read` raises, when its item's turn comes.
    """
    with ThreadPoolExecutor(1) as thread:
        coming: list[tuple[Item, Future[Value]]] = []
        for item in items:
            coming.append((item, thread.submit(read, item)))
            if len(coming) > 1:
                first, value = coming.pop(0)
                yield first, value.result()
        for item, value in coming:
            yield item, value.result()


def blocks(data: Any) -> Iterator[tuple[slice, Any]]:
    """A tree of arrays and columns with a leading axis of n, block by block in memory.

    The tree has at least one leaf; a block has as many rows as take 16 MiB.
    """
    leaves = jax.tree.leaves(data)
    n, size = len(leaves[0]), _rows_of_a_block(leaves)
    slices = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    if not any(isinstance(x, Column) for x in leaves):
        return ((rows, jax.tree.map(lambda x, rows=rows: x[rows], data)) for rows in slices)
    return ahead(lambda rows: rows_of(data, rows), slices)


def rows_of(data: Any, rows: slice) -> Any:
    """Some rows of a tree, in memory; those that lie in one record are read once for all leaves."""
    leaves = jax.tree.leaves(data)
    if not any(isinstance(x, Column) for x in leaves):
        return jax.tree.map(lambda x: x[rows], data)
    start, stop, _ = rows.indices(len(leaves[0]))
    size = _rows_of_a_block(leaves)
    parts = [slice(at, min(at + size, stop)) for at in range(start, stop, size)]
    read = [jax.tree.map(lambda x, some=some: x[some], data) for some in parts]
    return read[0] if len(read) == 1 else jax.tree.map(lambda *x: np.concatenate(x), *read)


def by_row(compute: Callable[..., np.ndarray], *arrays: Any) -> np.ndarray:
    """`compute` of rows of the arrays -> values with as long a leading axis; those of all rows."""
    return np.concatenate([np.asarray(compute(*some)) for _, some in blocks(arrays)])


def _row(x: Any) -> int:
    """Bytes of a row."""
    return int(np.prod(x.shape[1:])) * np.dtype(x.dtype).itemsize


def _rows_of_a_block(leaves: list[Any]) -> int:
    touched = [x.touched for x in leaves if isinstance(x, Column)]
    return max(1, _BLOCK // max(1, sum(map(_row, leaves)), *touched))
