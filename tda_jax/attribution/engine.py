"""The compiled passes of a run, each with the parameters placed for it."""

from typing import Any, NamedTuple

from tda_jax import params as tree
from tda_jax.attribution import directions, linearised, sweep, unlearn
from tda_jax.attribution.contract import Model
from tda_jax.attribution.settings import Compute, Settings


class Engine(NamedTuple):
    """Passes with their parameters; each compiles at its first run.

    Attributes:
        gradient: of a query.
        calibration: of a query's own response.
        sweep: of losses.
        linear: of expansions along the directions of `queries_per_pass` queries.
    """

    gradient: tuple[unlearn.GradientPass, Any]
    calibration: tuple[linearised.LinearPass, Any]
    sweep: tuple[sweep.Sweep, Any]
    linear: tuple[linearised.LinearPass, Any]


def make_engine(
    model: Model, settings: Settings, compute: Compute, moved: tree.Flat, rest: tree.Flat
) -> Engine:
    """Prepares the passes.

    Args:
        model: what is attributed.
        settings: what decides the scores.
        compute: devices and batches.
        moved: the group's parameters.
        rest: all others.
    """
    s, batch, used = settings, compute.batch, compute.devices
    # Batches of the Fisher information hold more than these, and `plan` looks whether they fit.
    few = compute.fisher_batch
    gradient = unlearn.make_gradient(model, s.query_draws, s.blocks, s.seed, few, used)
    calibration = directions.calibration_pass(model, s, few, used)
    swept = sweep.make_sweep(model, s.draws, s.seed, batch, used, frames=s.frames)
    pairs = linearised.pairs(batch, compute.queries_per_pass * s.blocks)
    linear = linearised.make_linearised(
        model, s.draws, s.seed, pairs, used, dtype=s.dtype, curved=s.second_order
    )
    return Engine(
        (gradient, unlearn.place(gradient, moved, rest)),
        (calibration, linearised.place(calibration, moved, rest)),
        (swept, sweep.place(swept, moved, rest)),
        (linear, linearised.place(linear, moved, rest)),
    )
