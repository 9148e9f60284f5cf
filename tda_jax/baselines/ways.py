"""The ways of unlearning that are compared: direction, step, part, weighting; and their names.

A variant is named by what makes it: "exact transformer c=0.1 rho=0.1 uniform".
"""

from typing import Literal, NamedTuple

from tda_jax import keys
from tda_jax.attribution.fisher import Kind
from tda_jax.baselines.contract import Passes, Task

Rule = Literal["exact", "odd", "even", "both", "learnt"]


class Way(NamedTuple):
    """A direction.

    Attributes:
        group: of parameters.
        damping: c, times the mean of F over the group.
        fisher: "residual" or "probe", see `attribution.fisher`.
        scrambled: with the sign of each parameter drawn at random: a control.
    """

    group: str
    damping: float
    fisher: Kind = "residual"
    scrambled: bool = False

    def __str__(self) -> str:
        """What names it in a variant."""
        odd = (self.fisher == "probe") * " Gauss-Newton" + self.scrambled * " scrambled"
        return f"{self.group} c={self.damping:g}{odd}"


class Step(NamedTuple):
    """An exact step.

    Attributes:
        way: its direction.
        rise: ρ, the share by which the query's loss is predicted to rise.
        learn: against the direction, so that the query is learnt: a control.
        shared: the sweep's draws are the same for all tracks.
    """

    way: Way
    rise: float
    learn: bool = False
    shared: bool = False


class Variant(NamedTuple):
    """One way to score by unlearning.

    Attributes:
        rule: "exact", the losses' rise; of the expansion "odd", "even" or "both" parts; "learnt",
            the exact rise after a step against the direction.
        way: the direction.
        rise: ρ; None for one part alone, which ranks alike at every step.
        weighting: of timestep bins.
        shared: the draws are the same for all tracks.
    """

    rule: Rule
    way: Way
    rise: float | None
    weighting: str
    shared: bool = False

    @property
    def name(self) -> str:
        """What tables call it."""
        step = "" if self.rise is None else f" rho={self.rise:g}"
        return f"{self.rule} {self.way}{step} {self.weighting}{self.shared * ' shared draws'}"


class Plan(NamedTuple):
    """What is computed.

    Attributes:
        ways: all directions, those of `steps` among them.
        steps: that are swept exactly.
        rises: ρ at which the expansions are read off.
        weightings: of timestep bins, some of `attribution.scores.WEIGHTINGS`.
        fisher_draws: of each member.
        query_draws: of the query's gradient.
        blocks: independent blocks of the query's draws, along each of which tracks are expanded;
            pairs of unlike ones keep the noise in the direction out of the even part.
        draws: of each track in the sweep, and of the query's own response, which sets how far
            its steps go.
    """

    ways: tuple[Way, ...]
    steps: tuple[Step, ...]
    rises: tuple[float, ...] = (0.1,)
    weightings: tuple[str, ...] = ("uniform",)
    fisher_draws: int = 10
    query_draws: int = 480
    blocks: int = 2
    draws: keys.Draws = keys.Draws(4, 10)


def variants(plan: Plan) -> dict[str, Variant]:
    """Every variant of a plan by its name."""
    found = []
    for weighting in plan.weightings:
        for way in plan.ways:
            found += [Variant("odd", way, None, weighting), Variant("even", way, None, weighting)]
            found += [Variant("both", way, rise, weighting) for rise in plan.rises]
        for step in plan.steps:
            found.append(variant_of(step, weighting))
    return {one.name: one for one in found}


def passes_of(plan: Plan, task: Task, variant: Variant) -> Passes:
    """What one variant takes alone, as `experiments.attribute` would run it."""
    n, count = len(task.corpus.ids), plan.draws.count
    members = int(task.corpus.members.sum())
    exact = variant.rule in ("exact", "learnt")
    shared = 3 * members * plan.fisher_draws + (n * count if exact else 0)
    tangents = 1 + plan.blocks
    query = 3 * plan.query_draws + count * tangents + n * count * (1 if exact else tangents)
    return Passes(float(shared), float(query))


def variant_of(step: Step, weighting: str) -> Variant:
    """The variant of an exact step."""
    rule: Rule = "learnt" if step.learn else "exact"
    return Variant(rule, step.way, step.rise, weighting, step.shared)
