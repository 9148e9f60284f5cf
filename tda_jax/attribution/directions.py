"""How far to go along a query's direction: its own loss there, and the learning rate.

The query's loss and its derivatives are taken on draws of their own, neither those of its gradient
nor those of the sweep, so that it never meets its own noise.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tda_jax import artifact, examples, keys, places
from tda_jax import params as tree
from tda_jax.attribution import linearised, prepare, unlearn
from tda_jax.attribution.settings import Settings
from tda_jax.places import Place


class Calibration(NamedTuple):
    """A query's own response to its direction u, at any learning rate.

    Attributes:
        loss: L(ẑ, θ0).
        a: first-order term, the rise of that loss for a small learning rate.
        b: second-order term along u as taken.
        b_unbiased: the same without the noise in u; much less than `b` says that u is mostly noise.
    """

    loss: float
    a: float
    b: float
    b_unbiased: float


class Direction(NamedTuple):
    """Along which way, and how far, a query is unlearned.

    Attributes:
        blocks: path -> (B, ...), (F + λ)⁻¹ ∇L(ẑ, θ0)/N for each block of draws.
        calibration: the query's own response.
        rate: the learning rate: the one that was set, or that of the scale-free step.
    """

    blocks: tree.Flat
    calibration: Calibration
    rate: float


def calibrate(
    linear: linearised.LinearPass,
    placed: Any,
    blocks: tree.Flat,
    query: examples.Corpus,
    settings: Settings,
    path: Place,
    source: dict[str, Any],
) -> Calibration:
    """The response of one query, from its artifact or computed now.

    Args:
        linear: from `linearised.make_linearised`, in the domain CALIBRATION.
        placed: the parameters, from `linearised.place`.
        blocks: the query's direction.
        query: a corpus of one.
        settings: `mask_unlearn` counts, and what the pass was made from.
        path: of the artifact.
        source: what it is made from.

    Raises:
        UnusableQuery: a term is not finite.
    """
    if not places.exists(path):
        along = linearised.place_directions(linear, [blocks])
        seen = prepare.unlearning_examples(query, settings)
        got = linearised.expand(linear, placed, along, seen, query.ids)
        means = {
            "loss": got.loss.mean(dtype=np.float64),
            "a": got.a.mean(dtype=np.float64),
            "b": got.b_step.mean(dtype=np.float64),
            "b_unbiased": got.b.mean(dtype=np.float64),
        }
        artifact.save(path, {name: np.asarray(x) for name, x in means.items()}, source, {})
    return read_calibration(path, source, query.ids[0])


def read_calibration(path: Place, source: Mapping[str, Any], query: str) -> Calibration:
    """The response of one query, from its artifact.

    Args:
        path: of the artifact.
        source: what it is made from.
        query: its id.

    Raises:
        UnusableQuery: a term is not finite.
        InputError: there is no such artifact, or it is of something else.
    """
    found, _ = artifact.load(path, source)
    means = {name: float(x) for name, x in found.items()}
    if not all(map(math.isfinite, means.values())):
        raise unlearn.UnusableQuery(
            f"query {query!r}: its response {means} to its direction is not finite; "
            "raise the damping, in another workdir"
        )
    return Calibration(**means)


def rate_of(calibration: Calibration, settings: Settings) -> float:
    """The learning rate: `settings.rate`, or the one that gives the rise `settings.rise`.

    Raises:
        UnusableQuery: no learning rate gives that rise.
    """
    if settings.rate is not None:
        return settings.rate
    return unlearn.rate_for_rise(calibration.a, calibration.b, calibration.loss, settings.rise)


def calibration_pass(
    model: Any, settings: Settings, batch: int, used: tuple[Any, ...]
) -> linearised.LinearPass:
    """The pass that `calibrate` takes: never in half precision, since few draws are needed."""
    return linearised.make_linearised(
        model,
        settings.draws,
        settings.seed,
        linearised.pairs(batch, settings.blocks),
        used,
        keys.Domain.CALIBRATION,
        "float32" if settings.dtype == "bfloat16" else settings.dtype,
    )
