"""The programs of the controls: each compiled once, for all seeds, loss levels and groups."""

from typing import Any, NamedTuple

import jax
import numpy as np

from tda_jax import keys
from tda_jax import params as tree
from tda_jax.attribution import fisher, linearised, sweep, unlearn
from tda_jax.evaluation.controls_plan import Plan
from tda_jax.evaluation.network import Network, model_of


class Passes(NamedTuple):
    """Passes over draws, with respect to all parameters.

    Attributes:
        fisher: squared gradients.
        gradient: of a query, in blocks of `Plan.block_draws`.
        linear: the expansion along directions.
        curved: the same with the second-order term.
        half: the same in bfloat16, without that term.
        sweep: losses.
    """

    fisher: fisher.FisherPass
    gradient: unlearn.GradientPass
    linear: linearised.LinearPass
    curved: linearised.LinearPass
    half: linearised.LinearPass
    sweep: sweep.Sweep


class Placed(NamedTuple):
    """The parameters of one loss level, placed for each pass; `moved` are all of them."""

    moved: tree.Flat
    fisher: Any
    gradient: Any
    linear: Any
    curved: Any
    half: Any
    sweep: Any


def make(network: Network, plan: Plan, batch: int, used: tuple[jax.Device, ...]) -> Passes:
    """Prepares the passes; each compiles at its first run.

    Args:
        network: whose losses they are; its parameters come by `place`.
        plan: sizes.
        batch: (track, draw) pairs on one device at a time.
        used: local devices.
    """
    model, seed = model_of(network, network.params, ""), plan.seeds[0]
    blocks = plan.query_draws // plan.block_draws
    few = min(batch, plan.draws.count)  # a tangent for each direction: rows of one track suffice

    def expansion(dtype: str = "float32", curved: bool = False) -> linearised.LinearPass:
        return linearised.make_linearised(
            model, plan.draws, seed, few, used, dtype=dtype, curved=curved
        )

    return Passes(
        fisher.make_fisher(model, plan.fisher_draws, seed, plan.fisher_draws, used),
        unlearn.make_gradient(model, plan.query_draws, blocks, seed, batch, used),
        expansion(),
        expansion(curved=True),
        expansion("bfloat16"),
        sweep.make_sweep(model, plan.draws, seed, batch, used),
    )


def seeded(passes: Passes, seed: int) -> Passes:
    """The same programs, for the draws of another seed."""
    sweeps = keys.root(seed, keys.Domain.SWEEP)
    return Passes(
        passes.fisher._replace(key=keys.root(seed, keys.Domain.FISHER)),
        passes.gradient._replace(key=keys.root(seed, keys.Domain.QUERY)),
        passes.linear._replace(key=sweeps),
        passes.curved._replace(key=sweeps),
        passes.half._replace(key=sweeps),
        passes.sweep._replace(root=sweeps),
    )


def place(passes: Passes, params: Any) -> Placed:
    """Puts parameters on the devices of every pass."""
    moved, rest = tree.split(params, ".*")
    return Placed(
        jax.tree.map(np.asarray, moved),
        fisher.place(passes.fisher, moved, rest),
        unlearn.place(passes.gradient, moved, rest),
        linearised.place(passes.linear, moved, rest),
        linearised.place(passes.curved, moved, rest),
        linearised.place(passes.half, moved, rest),
        sweep.place(passes.sweep, moved, rest),
    )
