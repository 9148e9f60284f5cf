"""How much of a run a device takes at a time, where the user does not say: what fits its memory.

Sizes change no score but by rounding. More at a time is faster until a device is busy, and takes
memory: of a program's bytes all but a constant grow in proportion, so two compiled programs say
how much fits, and a third one is asked whether it does.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from tda_jax.attribution import plan
from tda_jax.attribution.contract import Model, split_group
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.errors import InputError
from tda_jax.examples import Corpus

_DIRECTIONS = 4  # a share of a device, for the directions of a pass that nobody predicted
_FREE = 0.1  # of a device's memory, for what no program counts: fragments, and the allocator's own


class Most(NamedTuple):
    """Sizes beyond which nothing is gained; see `Compute`."""

    batch: int
    fisher_batch: int
    queries_per_pass: int


ON_CPU = Most(8, 4, 5)  # a core is busy with one latent; benchmarks/results/forward-cpu.json
ON_ACCELERATOR = Most(64, 16, 8)


def most(compute: Compute) -> Most:
    """The largest sizes that are worth it on the devices of a run."""
    return ON_CPU if compute.devices[0].platform == "cpu" else ON_ACCELERATOR


def unpredicted(
    model: Model, queries: Corpus, settings: Settings, compute: Compute, room: int | None
) -> Compute:
    """Sizes for those of 0 where no program's memory can be predicted: few, whatever the device.

    Directions take the most: as many queries go together as fit with their blocks into a quarter of
    a device, and one where its memory is not known.

    Args:
        model: what to attribute; shapes in place of parameters will do.
        queries: to be attributed.
        settings: group, method and blocks count.
        compute: sizes.
        room: bytes of each device, from `devices.room`; None where they are not known.
    """
    moved, _ = split_group(model, settings.group)
    blocks = settings.blocks if settings.method == "linearised" else 1
    each = blocks * sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in moved.values())
    fit = max(1, (room or 0) // _DIRECTIONS // each)
    few = min(ON_CPU.queries_per_pass, len(queries.ids), fit)
    least = ON_CPU._replace(queries_per_pass=few)
    return compute._replace(
        **{name: getattr(compute, name) or size for name, size in least._asdict().items()}
    )


def fitting(
    model: Model,
    corpus: Corpus,
    queries: Corpus,
    settings: Settings,
    compute: Compute,
    room: int | None,
) -> Compute:
    """Chooses the sizes of a run that are 0; others stay as they are.

    Args:
        model: what to attribute; shapes in place of parameters will do.
        corpus: its tracks.
        queries: to be attributed.
        settings: what decides the scores.
        compute: devices and sizes.
        room: bytes of each device, from `devices.room`; None where they are not known.

    Raises:
        InputError: not even a size of 1 fits.
    """
    if room is None:
        return unpredicted(model, queries, settings, compute, room)
    asked = (model, corpus, queries, settings)
    room, up_to = int(room * (1 - _FREE)), most(compute)
    if not compute.queries_per_pass:
        few = min(up_to.queries_per_pass, len(queries.ids))
        least = compute._replace(batch=compute.batch or 1)
        least = _chosen("queries_per_pass", few, *asked, least, room, plan.sweep_bytes)
        compute = compute._replace(queries_per_pass=least.queries_per_pass)
    if not compute.batch:
        compute = _chosen("batch", up_to.batch, *asked, compute, room, plan.sweep_bytes)
    if not compute.fisher_batch:
        few = up_to.fisher_batch
        compute = _chosen("fisher_batch", few, *asked, compute, room, plan.fisher_bytes)
    return compute


def _chosen(
    name: str,
    largest: int,
    model: Model,
    corpus: Corpus,
    queries: Corpus,
    settings: Settings,
    compute: Compute,
    room: int,
    needed: Callable[[Model, Corpus, Corpus, Settings, Compute], int],
) -> Compute:
    """Sets one size to the largest power of two, or the largest worth it, that fits."""

    def of(size: int) -> int:
        try:
            return needed(model, corpus, queries, settings, compute._replace(**{name: size}))
        except jax.errors.JaxRuntimeError as error:  # a TPU's compiler refuses what does not fit
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return room + 1

    size, bytes_ = largest, of(largest)
    if bytes_ > room and size > 1:
        least = of(1)
        fit = (room - least) * (size - 1) // max(1, bytes_ - least)
        size = min(size, 2 << max(0, 1 + int(fit)).bit_length())  # above what is expected to fit
    while bytes_ > room and size > 1:
        size = max(1, size // 2)
        bytes_ = of(size)
    if bytes_ > room:
        raise InputError(
            f"{name} = 1 needs {bytes_ / 1e9:.2f} GB or more on each device, which has "
            f"{room / 1e9:.2f} GB for it: move a smaller group, use fewer blocks, or a device "
            "with more memory"
        )
    return compute._replace(**{name: size})
