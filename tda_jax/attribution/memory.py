"""What a pass takes on each device, from its compiled program, before it runs: memory and FLOPs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tda_jax import devices
from tda_jax import params as tree
from tda_jax.attribution import fisher, linearised, sweep
from tda_jax.attribution.rows import rows_of
from tda_jax.examples import Example


class Need(NamedTuple):
    """Bytes on each device, and operations.

    Attributes:
        arguments: parameters, directions, sums and one batch of rows.
        results: of one batch, without those that take the place of an argument.
        scratch: what the program needs while it runs.
        flops: floating-point operations of one batch on one device, as the compiler counts them.
    """

    arguments: int
    results: int
    scratch: int
    flops: float

    @property
    def peak(self) -> int:
        """All of them together: what a device must have."""
        return self.arguments + self.results + self.scratch


def of_fisher(
    made: fisher.FisherPass,
    placed: Any,
    moved: tree.Flat,
    examples: Example,
    weighed: bool = False,
) -> Need:
    """The memory of a pass for the Fisher information.

    Args:
        made: from `fisher.make_fisher`.
        placed: from `fisher.place`, or the shapes of it.
        moved: the group.
        examples: with a leading axis; one is enough.
        weighed: whether rows have weights, as units of tracks do.
    """
    mapped, lead = made.mapped, (len(made.mapped.devices), made.mapped.batch)
    total = jax.tree.map(lambda x: _shape(lead[:1] + x.shape, x.dtype), moved)
    rows = _rows(mapped, examples, made.draws, made.layout.per_row)
    weights = _shape(lead, jnp.result_type(float)) if weighed else None
    return _need(mapped, total, placed, (rows, weights), _shape(lead, bool))


def of_sweep(made: sweep.Sweep, placed: Any, moved: tree.Flat, examples: Example) -> Need:
    """The memory of a sweep under one displacement; each further one adds the group's size.

    The group as it was stays on the device, too.

    Args:
        made: from `sweep.make_sweep`.
        placed: from `sweep.place`, or the shapes of it.
        moved: the group.
        examples: with a leading axis; one is enough.
    """
    rows = _rows(made.mapped, examples, made.draws.count, made.layout.per_row)
    _, *others = placed
    need = _need(made.mapped, (moved, *others), rows)
    kept = sum(x.size * x.dtype.itemsize for x in moved.values())
    return need._replace(arguments=need.arguments + kept)


def of_linearised(
    made: linearised.LinearPass,
    placed: Any,
    moved: tree.Flat,
    queries: int,
    blocks: int,
    examples: Example,
) -> Need:
    """The memory of a linearised pass along the directions of several queries.

    Args:
        made: from `linearised.make_linearised`.
        placed: from `linearised.place`, or the shapes of it.
        moved: the group.
        queries: Q.
        blocks: B, directions of each query.
        examples: with a leading axis; one is enough.
    """

    def along(x: Any) -> jax.ShapeDtypeStruct:
        return _shape(linearised.directions_shape(x.shape, queries, blocks), made.dtype)

    rows = _rows(made.mapped, examples, made.draws.count, made.layout.per_row)
    return _need(made.mapped, (placed, jax.tree.map(along, moved)), rows)


def _rows(mapped: devices.RowMap, examples: Example, draws: int, per_row: int) -> Any:
    """The shapes of one batch of rows."""
    lead = (len(mapped.devices), mapped.batch)
    first = jax.tree.map(lambda x: np.asarray(x[:1]), examples)
    row = rows_of(first, np.zeros((1, 2), np.uint32), draws, per_row)(np.zeros(1, np.int64))
    return jax.tree.map(lambda x: _shape(lead + x.shape[1:], x.dtype), row)


def _shape(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))


def _need(mapped: devices.RowMap, *arguments: Any) -> Need:
    compiled = mapped.step.lower(*arguments).compile()
    stats, costs = compiled.memory_analysis(), compiled.cost_analysis() or {}
    return Need(
        stats.argument_size_in_bytes,
        stats.output_size_in_bytes - stats.alias_size_in_bytes,
        stats.temp_size_in_bytes,
        float(costs.get("flops", 0.0)),
    )
