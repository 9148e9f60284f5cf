"""Work by rows over the local devices: `pmap` of `vmap`, for any number of rows.

The only module that names `pmap`. A row is whatever one call of a function takes: a track with some
of its draws. Rows are padded to fill every device, results are un-padded, and no collective runs
between devices, so the number of devices changes no result but for rounding.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool

from tda_jax.errors import InputError

_IN_FLIGHT = 2  # batches dispatched ahead of the one that is waited for

Rows = Callable[[np.ndarray], Any]
"""rows(positions) -> a tree of arrays with one row for each position."""


class RowMap(NamedTuple):
    """A function of (shared, row), compiled over devices and rows.

    Attributes:
        step: over a batch of devices × rows; see `row_map` and `row_sum`.
        devices: the local devices, in the order that batches are laid out.
        batch: rows on one device at a time.
    """

    step: Callable[..., Any]
    devices: tuple[jax.Device, ...]
    batch: int


def local_devices(count: int | None = None) -> tuple[jax.Device, ...]:
    """The first `count` devices of this process; all of them by default.

    Raises:
        InputError: there are fewer.
    """
    devices = tuple(jax.local_devices())
    if count is not None and not 1 <= count <= len(devices):
        raise InputError(f"{count} devices asked for; this process has {len(devices)}")
    return devices[:count]


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """A copy of a tree on every device, for the `shared` argument of many calls.

    Where the only device holds the tree already, nothing is copied.
    """
    mesh = Mesh(np.asarray(devices, object), ("devices",))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def row_map(
    function: Callable[[Any, Any], Any], devices: Sequence[jax.Device], batch: int
) -> RowMap:
    """Maps function(shared, row) -> results over rows; run it by `results`."""
    devices, batch = tuple(devices), _whole(batch)
    mapped = jax.vmap(_exact(function), in_axes=(None, 0))
    return RowMap(jax.pmap(mapped, in_axes=(None, 0), devices=devices), devices, batch)


def row_sum(
    function: Callable[[Any, Any], tuple[Any, Any, Any]], devices: Sequence[jax.Device], batch: int
) -> RowMap:
    """Sums trees over rows; run it by `add_rows`.

    Args:
        function: (shared, row) -> (tree, good, info): the tree is added if `good`, a bool, is True.
            It must be finite then; otherwise it may hold anything.
        devices: where to run.
        batch: rows on one device at a time.
    """
    devices, batch = tuple(devices), _whole(batch)

    def step(total: Any, shared: Any, rows: Any, real: Bool[jax.Array, " batch"]) -> Any:
        trees, good, info = jax.vmap(_exact(function), in_axes=(None, 0))(shared, rows)
        keep = good & real

        def add(t: jax.Array, x: jax.Array) -> jax.Array:
            chosen = keep.reshape(keep.shape + (1,) * (x.ndim - 1))
            return t + jnp.where(chosen, x, jnp.zeros_like(x)).sum(0)

        return jax.tree.map(add, total, trees), info

    step = jax.pmap(step, in_axes=(0, None, 0, 0), devices=devices, donate_argnums=0)
    return RowMap(step, devices, batch)


def results(mapped: RowMap, shared: Any, rows: Rows, count: int) -> Any:
    """Runs a `row_map` over all rows.

    Args:
        mapped: the compiled function.
        shared: a tree that `replicate` placed on the map's devices.
        rows: gives the rows at some positions in 0 .. count-1.
        count: how many rows there are, 1 at least.

    Returns:
        A tree of numpy arrays with a leading axis of `count`.
    """
    batches = _ahead(_batches(mapped, rows, count), lambda b: mapped.step(shared, b))
    return _together([_real(out, real) for out, real in batches])


def zeros(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """The start of a sum like `tree`: zeros on each device, with a leading axis of devices."""
    mesh = Mesh(np.asarray(devices, object), ("devices",))
    sharding = NamedSharding(mesh, PartitionSpec("devices"))
    make = jax.jit(
        lambda: jax.tree.map(lambda x: jnp.zeros((len(devices), *x.shape), x.dtype), tree),
        out_shardings=sharding,
    )
    return make()


def as_total(total: Any, devices: Sequence[jax.Device]) -> Any:
    """A total that was taken off its devices, with its leading axis of devices, put back on them.

    On another number of devices than before, the first one goes on from the sum of all.
    """

    def put(x: np.ndarray) -> jax.Array:
        if len(x) != len(devices):
            rest = np.zeros((len(devices) - 1, *x.shape[1:]), x.dtype)
            x = np.concatenate([np.add.reduce(x, axis=0)[None], rest])
        return jax.device_put(x, sharding)

    mesh = Mesh(np.asarray(devices, object), ("devices",))
    sharding = NamedSharding(mesh, PartitionSpec("devices"))
    return jax.tree.map(put, total)


def add_rows(mapped: RowMap, total: Any, shared: Any, rows: Rows, count: int) -> tuple[Any, Any]:
    """Runs a `row_sum` over all rows.

    Args:
        mapped: the compiled function.
        total: from `zeros` or an earlier call; it is used up.
        shared: a tree that `replicate` placed on the map's devices.
        rows: gives the rows at some positions in 0 .. count-1.
        count: how many rows there are, 1 at least.

    Returns:
        The new total, on the devices, and the `info` of each row as numpy arrays.
    """
    infos = []
    for batch, real in _batches(mapped, rows, count):
        shape = (len(mapped.devices), mapped.batch)
        total, info = mapped.step(total, shared, batch, real.reshape(shape))
        infos.append((info, real))
    return total, _together([_real(info, real) for info, real in infos])


def over_devices(total: Any) -> Any:
    """The sum over the leading axis of devices, as numpy arrays: always in the same order."""
    return jax.tree.map(lambda x: np.add.reduce(np.asarray(x), axis=0), total)


def _exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with float32 products in float32: TF32 and bf16 are the defaults elsewhere."""

    def traced(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args)

    return traced


def _whole(batch: int) -> int:
    if batch < 1:
        raise InputError(f"batch = {batch}; give the rows on one device at a time, 1 at least")
    return batch


def _batches(mapped: RowMap, rows: Rows, count: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches of shape (devices, batch, ...), each full, and which of their rows are real."""
    lead = (len(mapped.devices), mapped.batch)
    size = lead[0] * lead[1]
    for start in range(0, count, size):
        positions = np.arange(start, start + size)
        real = positions < count
        # A real row stands in for what is missing: zeros could make nan of a good model.
        batch = rows(np.where(real, positions, start))
        yield jax.tree.map(lambda x: x.reshape(lead + x.shape[1:]), batch), real


def _ahead(
    batches: Iterator[tuple[Any, np.ndarray]], run: Callable[[Any], Any]
) -> Iterator[tuple[Any, np.ndarray]]:
    """Runs batches with a few dispatched ahead, so that devices do not wait for the host."""
    waiting: collections.deque[tuple[Any, np.ndarray]] = collections.deque()
    for batch, real in batches:
        waiting.append((run(batch), real))
        if len(waiting) > _IN_FLIGHT:
            yield waiting.popleft()
    yield from waiting


def _real(results: Any, real: np.ndarray) -> Any:
    """Results of a batch (devices, batch, ...) as rows, without those of padding."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[real], jax.device_get(results))


def _together(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
