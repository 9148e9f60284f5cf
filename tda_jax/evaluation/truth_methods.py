"""Every method that is held against retraining: unlearning in its ways, and its rivals."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tda_jax import keys
from tda_jax.attribution.scores import WEIGHTINGS
from tda_jax.baselines import likenesses, mucs, tracin, trak, unlearning
from tda_jax.baselines.contract import Method, Passes, Task
from tda_jax.baselines.forgetting import Ascent
from tda_jax.baselines.unlearning import Plan, Step, Variant, Way
from tda_jax.evaluation.truth_plan import World
from tda_jax.evaluation.truth_scores import Entry

OWN = {
    "exact": "unlearning, exact",
    "both": "unlearning, linearised",
    "odd": "unlearning, odd part",
    "even": "unlearning, even part",
}
"""Rules of unlearning that may become the default, and what tables call them."""
PROBE = "unlearning, Gauss-Newton F"
SHARED = "unlearning, shared draws"
LEARNT = "learning the query (control)"
SCRAMBLED = "scrambled signs (control)"


class Budget(NamedTuple):
    """How many draws each method is given: the same for all.

    Attributes:
        draws: of each track.
        query_draws: of a query's gradient.
        fisher_draws: of each member, for the Fisher information.
    """

    draws: keys.Draws
    query_draws: int
    fisher_draws: int


def own_plan(groups: Mapping[str, str], budget: Budget) -> Plan:
    """The ways of unlearning: about a middle, one thing changed at a time.

    Args:
        groups: of the model. Those of "transformer" and "all" are gone into; a model whose text
            is no cross-attention lacks some of the others.
        budget: draws.
    """
    main = [Way(group, c) for group in ("transformer", "all") for c in (0.01, 0.1, 1.0, 10.0)]
    others = [Way(group, 0.1) for group in groups if group not in ("transformer", "all")]
    probes = [Way(group, 0.1, "probe") for group in ("transformer", "all")]
    scrambled = Way("transformer", 0.1, scrambled=True)
    rises = (0.03, 0.1, 0.3, 1.0)
    middle = [Way("transformer", 0.1), Way("all", 0.1)]
    steps = [Step(way, rise) for way in middle for rise in rises]
    few = [way for way in main if way.damping in (1.0, 10.0)] + others
    steps += [Step(way, rise) for way in few for rise in (0.1, 1.0)]
    steps += [Step(way, 0.1) for way in probes]
    steps += [Step(way, rise, shared=True) for way in middle for rise in (0.1, 1.0)]
    steps += [Step(middle[0], rise, learn=True) for rise in (0.1, 1.0)]
    return Plan(
        (*main, *others, *probes, scrambled),
        tuple(steps),
        rises,
        WEIGHTINGS,
        budget.fisher_draws,
        budget.query_draws,
        draws=budget.draws,
    )


def entries(
    world: World, task: Task, budget: Budget, ascent: Ascent
) -> tuple[list[Entry], dict[str, Variant]]:
    """All methods, and the variants of unlearning by name.

    Args:
        world: what is attributed.
        task: at one level.
        budget: draws.
        ascent: how MUCS forgets.
    """
    plan = own_plan(task.model.groups, budget)
    named = unlearning.variants(plan)
    rows = keys.Draws(budget.query_draws // budget.draws.strata, budget.draws.strata)
    groups = ("transformer", "all")
    rivals = [
        (tracin.tracin(budget.draws, rows, groups), "tracin", f"{budget} {groups}"),
        (trak.trak(budget.draws, rows), "trak", f"{budget} {trak.DIMENSION} {trak.DAMPINGS}"),
        (trak.d_trak(budget.draws, rows), "trak", f"{budget} {trak.DIMENSION} {trak.DAMPINGS}"),
        (mucs.mucs(ascent), "mucs", f"{mucs.DRAWS} {_settings(ascent)}"),
        (likenesses.latent(), "likenesses", ""),
        (likenesses.caption(), "likenesses", ""),
        (likenesses.chance(), "likenesses", ""),
    ]
    if world.heard is not None:
        rivals.insert(-1, (likenesses.log_mel(world.heard, world.heard), "likenesses", ""))
    own = unlearning.unlearning(plan)
    found = [
        Entry(
            own,
            "unlearning",
            repr(plan),
            lambda t, name: unlearning.passes_of(plan, t, named[name]),
        )
    ]
    found += [Entry(method, module, said, _cost(method)) for method, module, said in rivals]
    return found, named


def families(variants: Mapping[str, str], own: Mapping[str, Variant]) -> dict[str, str]:
    """The family of every variant, those of unlearning first.

    Args:
        variants: variant -> the name of its method.
        own: those of unlearning's, from `entries`.
    """
    found = {name: _family(own[name]) for name in own if name in variants}
    order = {family: i for i, family in enumerate((*OWN.values(), PROBE, SHARED, LEARNT))}
    found = dict(sorted(found.items(), key=lambda item: order.get(item[1], len(order))))
    for name, method in variants.items():
        if name not in found:
            found[name] = _rival(name, method)
    return found


def _family(variant: Variant) -> str:
    if variant.way.scrambled:
        return SCRAMBLED
    if variant.rule == "learnt":
        return LEARNT
    if variant.shared:
        return SHARED
    return PROBE if variant.way.fisher == "probe" else OWN[variant.rule]


def _rival(name: str, method: str) -> str:
    """A method of several rules has a family for each, named by the variant's first words."""
    if method == "TracIn":
        return f"gradient {name.split()[0]} (TracIn)"
    return method


def _cost(method: Method) -> Callable[[Task, str], Passes]:
    return lambda task, _: method.passes(task)


def _settings(ascent: Ascent) -> str:
    """What decides the scores of MUCS, beside the model that every training starts from."""
    return repr({k: v for k, v in ascent._asdict().items() if k != "untrained"})
