"""What the controls compute: sizes, steps and what each study takes. Refused before any work."""

import itertools
import math
from typing import NamedTuple

from tda_jax import keys
from tda_jax.errors import InputError
from tda_jax.evaluation.network import Network


class Plan(NamedTuple):
    """The settings of the controls; `configs/controls.py` says why each default.

    Attributes:
        seeds: each with a corpus, a training and draws of its own.
        works: of the members; see `synthetic_corpus`, likewise the next four.
        variants: members of each work.
        captions: crossed with the works.
        held_out: decoys of each work.
        unseen_works: works of which there are decoys only.
        updates: of one training, at which its parameters are kept: the loss levels, rising. The
            last is the main one.
        batch: examples in an update.
        learning_rate: of the training.
        queries: members to be unlearned for each seed.
        groups: parameters that are moved.
        damping: c; the Fisher information is damped by c times its mean over the group.
        fisher_draws: of each member, for the Fisher information.
        query_draws: of a query's gradient.
        replicates: R, of each stratum of the sweep.
        strata: S, equal parts of the schedule, a multiple of 10.
        own_replicates: R for the query's own response, which sets its learning rate.
        rise: ρ, the share by which the query's own loss is predicted to rise.
        rates: raw learning rates that are swept exactly.
        studied_queries: so many of the queries serve the studies below.
        studied_groups: groups of the studies of the quadratic and of the query's draws.
        rises: ρ at which the quadratic is held against exact losses.
        draw_counts: draws of a track whose scores are held against an independent set as large.
        query_draw_counts: likewise of the query's gradient; each twice the one before.
        caliper: a member and a decoy are compared if their latent similarities to the query differ
            by no more.
    """

    seeds: tuple[int, ...]
    works: int
    variants: int
    captions: int
    held_out: int
    unseen_works: int
    updates: tuple[int, ...]
    batch: int
    learning_rate: float
    queries: int
    groups: tuple[str, ...]
    damping: float
    fisher_draws: int
    query_draws: int
    replicates: int
    strata: int
    own_replicates: int
    rise: float
    rates: tuple[float, ...]
    studied_queries: int
    studied_groups: tuple[str, ...]
    rises: tuple[float, ...]
    draw_counts: tuple[int, ...]
    query_draw_counts: tuple[int, ...]
    caliper: float

    @property
    def members(self) -> int:
        """N, the number of tracks that are trained on."""
        return self.works * self.variants

    @property
    def draws(self) -> keys.Draws:
        """The draws of each track in a sweep."""
        return keys.Draws(self.replicates, self.strata)

    @property
    def own_draws(self) -> keys.Draws:
        """The draws of the query's own response."""
        return keys.Draws(self.own_replicates, self.strata)

    @property
    def many_draws(self) -> keys.Draws:
        """The draws of each track that two independent sets are taken from."""
        return keys.Draws(2 * max(self.draw_counts) // self.strata, self.strata)

    @property
    def block_draws(self) -> int:
        """Draws in a block of the query's gradient: half of the fewest that are studied."""
        return min(self.query_draw_counts) // 2


def refuse(plan: Plan, network: Network) -> None:
    """Refuses a plan that cannot be carried out.

    Raises:
        InputError: a number is out of range, or does not fit the others or the network.
    """
    _refuse_counts(plan)
    _refuse_numbers(plan)
    keys.bin_of(plan.strata)
    for seed in plan.seeds:
        keys.root(seed, keys.Domain.SWEEP)
    unknown = [g for g in (*plan.groups, *plan.studied_groups) if g not in network.groups]
    if unknown:
        raise InputError(f"groups {unknown} are not in this network: {sorted(network.groups)}")
    outside = [g for g in plan.studied_groups if g not in plan.groups]
    if outside:
        raise InputError(f"studied_groups {outside} are not in groups; add them there")


def _refuse_counts(plan: Plan) -> None:
    least = {"replicates": 2, "held_out": 1, "variants": 2, "captions": 2, "works": 2}
    names = ("queries", "fisher_draws", "studied_queries", "own_replicates", "batch")
    for name, minimum in {**dict.fromkeys(names, 1), **least}.items():
        if getattr(plan, name) < minimum:
            raise InputError(f"{name} = {getattr(plan, name)}; give {minimum} at least")
    most = {"queries": plan.members, "batch": plan.members, "studied_queries": plan.queries}
    for name, maximum in most.items():
        if getattr(plan, name) > maximum:
            raise InputError(f"{name} = {getattr(plan, name)}; give {maximum} at most")
    for name in ("seeds", "groups", "updates", "rates", "rises", "studied_groups", "draw_counts"):
        values = getattr(plan, name)
        if not values or len(set(values)) < len(values):
            raise InputError(f"{name} = {values}; give one at least, and each once")
    for name in ("updates", "rates", "rises", "draw_counts", "query_draw_counts"):
        values = getattr(plan, name)
        if min(values) <= 0 or list(values) != sorted(values):
            raise InputError(f"{name} = {values}; give numbers above 0, rising")


def _refuse_numbers(plan: Plan) -> None:
    for name in ("damping", "rise", "learning_rate", "caliper"):
        if not 0 < getattr(plan, name) < math.inf:
            raise InputError(f"{name} = {getattr(plan, name)}; give a finite number above 0")
    if plan.rise not in plan.rises:
        raise InputError(f"rises = {plan.rises} leave out rise = {plan.rise}; add it")
    per_row = plan.draws.count
    if plan.own_replicates % plan.replicates:
        raise InputError(
            f"own_replicates = {plan.own_replicates} is no multiple of replicates = "
            f"{plan.replicates}; one program serves both"
        )
    if max(plan.draw_counts) % per_row or any(n % plan.strata for n in plan.draw_counts):
        raise InputError(
            f"draw_counts = {plan.draw_counts}: give multiples of strata = {plan.strata}, the last "
            f"of replicates x strata = {per_row}"
        )
    counts = plan.query_draw_counts
    if counts[0] % 2 or any(b != 2 * a for a, b in itertools.pairwise(counts)):
        raise InputError(f"query_draw_counts = {counts}: start even, and double each time")
    if plan.query_draws % plan.block_draws:
        raise InputError(
            f"query_draws = {plan.query_draws} is no multiple of {plan.block_draws}, half of the "
            "first of query_draw_counts"
        )
