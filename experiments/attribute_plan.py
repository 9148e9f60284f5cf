"""What a run of `experiments.attribute` will cost, told before it: `--plan`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from experiments.attribute_inputs import Inputs
from experiments.attribute_outputs import size
from tda_jax.attribution.contract import Model
from tda_jax.attribution.plan import Stage
from tda_jax.attribution.probe import probe
from tda_jax.attribution.remaining import disk_bytes, left
from tda_jax.attribution.workdir import Job


class Cost(NamedTuple):
    """What one stage takes.

    Attributes:
        draws: (row, draw) pairs, of a run from nothing.
        left: of these, what is not in the workdir yet.
        flops: of a draw; None where no program of it alone was compiled.
        bytes: peak memory of each device; None likewise.
        seconds: of a draw, measured, on the devices of this process.
        hours: for what is left, over all processes.
    """

    draws: int
    left: int
    flops: float | None
    bytes: int | None
    seconds: float
    hours: float


def costs(
    model: Model, given: Inputs, stages: Mapping[str, Stage], job: Job, processes: int
) -> dict[str, Cost]:
    """The cost of each stage.

    Args:
        model: what is attributed.
        given: the inputs of the run.
        stages: from `plan.plan`.
        job: of the run.
        processes: that would share it, each with as many devices as this one.

    Raises:
        InputError: the workdir holds results of something else.
    """
    todo = left(job, given.queries)  # refuses before the probe
    seconds = probe(model, given.corpus, given.queries, given.settings, given.compute)
    return {
        name: Cost(
            stage.pairs,
            todo[name],
            stage.flops,
            stage.bytes,
            seconds[name],
            todo[name] * seconds[name] / processes / 3600,
        )
        for name, stage in stages.items()
    }


def describe(found: Mapping[str, Cost], given: Inputs, job: Job, processes: int) -> str:
    """The costs in lines."""
    head = ("", "draws", "still to do", "GFLOP a draw", "GFLOP/s", "memory", "ms a draw", "hours")
    rows = [head] + [(name, *_cells(cost)) for name, cost in found.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    total = sum(cost.hours for cost in found.values())
    on = given.compute
    lines.append(
        f"{total:.3g} hours on {processes} process(es) of {len(on.devices)} "
        f"{on.devices[0].device_kind} each, by the time of a batch of each stage on this one; "
        f"{size(disk_bytes(job, len(given.queries.ids)))} on disk at most in {job.workdir}"
    )
    return "\n".join(lines)


def as_json(found: Mapping[str, Cost], given: Inputs, job: Job, processes: int) -> dict[str, Any]:
    """The costs for `plan.json`."""
    return {
        "stages": {name: cost._asdict() for name, cost in found.items()},
        "hours": sum(cost.hours for cost in found.values()),
        "bytes_on_disk": disk_bytes(job, len(given.queries.ids)),
        "processes": processes,
        "devices": [str(device) for device in given.compute.devices],
        "batch": given.compute.batch,
        "fisher_batch": given.compute.fisher_batch,
        "queries_per_pass": given.compute.queries_per_pass,
        "jax": jax.__version__,
    }


def _cells(cost: Cost) -> tuple[str, ...]:
    known = cost.flops is not None and cost.seconds > 0
    return (
        f"{cost.draws:,}",
        f"{cost.left:,}",
        "" if cost.flops is None else f"{cost.flops / 1e9:.3g}",
        f"{cost.flops / cost.seconds / 1e9:,.0f}" if known else "",
        "" if cost.bytes is None else size(cost.bytes),
        f"{cost.seconds * 1e3:.3g}",
        f"{cost.hours:.3g}",
    )
