"""Work by rows over the local devices: `pmap` of `vmap`, for any number of rows.

The only module that names `pmap`. A row is whatever one call of a function takes: a track with some
of its draws. Rows are padded to fill every device, results are un-padded, and no collective runs
between devices, so the number of devices changes no result but for rounding.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool

from tda_jax import machine
from tda_jax.errors import InputError

_AXIS = "devices"
_AHEAD = 2  # batches dispatched ahead of the one that is waited for, on an accelerator

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


def room(devices: Sequence[jax.Device]) -> int | None:
    """Bytes that each device has: what its allocator may take, or a share of a CPU process's.

    None where an accelerator does not say.
    """
    if all(device.platform == "cpu" for device in devices):
        return machine.memory() // len(devices)
    said = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    return None if None in said else min(said)


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """A copy of a tree on every device, for the `shared` argument of many calls.

    Where the only device holds the tree already, nothing is copied.
    """
    mesh = Mesh(np.asarray(devices, object), (_AXIS,))
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

    # The name of `zeros`' axis: a sum under another one would be compiled for once more.
    step = jax.pmap(step, _AXIS, in_axes=(0, None, 0, 0), devices=devices, donate_argnums=0)
    return RowMap(step, devices, batch)


def row_states(
    function: Callable[[Any, Any, Any, Any], Any], devices: Sequence[jax.Device], batch: int
) -> RowMap:
    """Moves on a state of each row's own, again and again; run it by `moved_on`.

    Args:
        function: (state, shared, row, common) -> state.
        devices: where to run.
        batch: rows on one device at a time.
    """
    devices, batch = tuple(devices), _whole(batch)
    function = _exact(function)

    def alone(state: Any, shared: Any, row: Any, common: Any) -> Any:
        """One row without `vmap`, which makes its convolutions slower by a fifth on a CPU."""
        state, row = jax.tree.map(lambda x: x[0], (state, row))
        return jax.tree.map(lambda x: x[None], function(state, shared, row, common))

    mapped = alone if batch == 1 else jax.vmap(function, in_axes=(0, None, 0, None))
    step = jax.pmap(mapped, in_axes=(0, None, 0, None), devices=devices, donate_argnums=0)
    return RowMap(step, devices, batch)


def states(mapped: RowMap, state: Any) -> Any:
    """A copy of a state for each row of a `row_states`: leading axes of devices and rows."""
    lead = (len(mapped.devices), mapped.batch)
    sharding = _over(mapped.devices)

    def copies(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.device_put(np.broadcast_to(x, lead + x.shape), sharding)

    return jax.tree.map(copies, state)


def moved_on(mapped: RowMap, state: Any, shared: Any, rows: Any, common: Any) -> Any:
    """The states after one call of the function.

    Args:
        mapped: from `row_states`.
        state: from `states` or an earlier call; it is used up.
        shared: a tree that `replicate` placed on the map's devices.
        rows: a tree of arrays with an axis of devices x rows in front, in the order of states.
        common: a small tree that is the same for all rows.
    """
    lead = (len(mapped.devices), mapped.batch)
    rows = jax.tree.map(lambda x: x.reshape(lead + x.shape[1:]), rows)
    return mapped.step(state, shared, rows, common)


def by_row(state: Any) -> Any:
    """States as numpy arrays, with one axis of rows in front."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(state))


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
    batches = _batches(mapped, rows, count)
    ahead = _ahead(((mapped.step(shared, b), real) for b, real in batches), mapped.devices)
    return _together([_real(out, real) for out, real in ahead])


def zeros(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """The start of a sum like `tree`: zeros on each device, with a leading axis of devices."""
    leaves, structure = jax.tree.flatten(tree)
    kinds = tuple((x.shape, jnp.dtype(x.dtype)) for x in leaves)
    return jax.tree.unflatten(structure, _zeros(kinds, tuple(devices))())


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
    shape = (len(mapped.devices), mapped.batch)

    def infos() -> Iterator[tuple[Any, np.ndarray]]:
        nonlocal total
        for batch, real in _batches(mapped, rows, count):
            total, info = mapped.step(total, shared, batch, real.reshape(shape))
            yield info, real

    parts = [_real(info, real) for info, real in _ahead(infos(), mapped.devices)]
    return total, _together(parts)


def over_devices(total: Any) -> Any:
    """The sum over the leading axis of devices, as numpy arrays: always in the same order."""
    return jax.tree.map(lambda x: np.add.reduce(np.asarray(x), axis=0), total)


@functools.lru_cache(maxsize=32)
def _zeros(
    kinds: tuple[tuple[tuple[int, ...], Any], ...], devices: tuple[jax.Device, ...]
) -> Callable[[], list[jax.Array]]:
    """Makes zeros of given shapes and types on each device; compiled once for each such list."""
    return jax.jit(
        lambda: [jnp.zeros((len(devices), *shape), dtype) for shape, dtype in kinds],
        out_shardings=_over(devices),
    )


def _over(devices: Sequence[jax.Device]) -> NamedSharding:
    """The leading axis over the devices."""
    return NamedSharding(Mesh(np.asarray(devices, object), (_AXIS,)), PartitionSpec(_AXIS))


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
    running: Iterator[tuple[Any, np.ndarray]], devices: Sequence[jax.Device]
) -> Iterator[tuple[Any, np.ndarray]]:
    """Batches that run, with a few dispatched ahead, so that devices do not wait for the host.

    On a CPU none: host and device are one there, and every batch that waits holds its scratch.
    """
    most = 0 if devices[0].platform == "cpu" else _AHEAD
    waiting: collections.deque[tuple[Any, np.ndarray]] = collections.deque()
    for out, real in running:
        waiting.append((jax.block_until_ready(out) if not most else out, real))
        if len(waiting) > most:
            yield waiting.popleft()
    yield from waiting


def _real(results: Any, real: np.ndarray) -> Any:
    """Results of a batch (devices, batch, ...) as rows, without those of padding."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[real], jax.device_get(results))


def _together(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
