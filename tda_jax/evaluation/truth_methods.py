"""Every method that is held against retraining: unlearning in its ways, and its rivals."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tda_jax import fingerprint, keys
from tda_jax import params as tree
from tda_jax.attribution.scores import WEIGHTINGS
from tda_jax.baselines import likenesses, mucs, tracin, trak, unlearning, ways
from tda_jax.baselines.contract import Method, Passes, Task
from tda_jax.baselines.forgetting import Ascent, Forgotten
from tda_jax.baselines.ways import Plan, Step, Variant, Way
from tda_jax.evaluation.truth_plan import World
from tda_jax.evaluation.truth_scores import Entry

_GROUPS = ("transformer", "all")  # of rivals that take gradients
USUAL = Variant("both", Way("transformer", 0.01), 0.1, "uniform")
"""Unlearning at the defaults of `configs/arrays.py`."""

OWN = {
    "exact": "unlearning, exact",
    "both": "unlearning, linearised",
    "odd": "unlearning, odd part",
    "even": "unlearning, even part",
}
"""Rules of unlearning, and what tables call them."""
PROBE = "unlearning, Gauss-Newton F"
SHARED = "unlearning, shared draws"
DEFAULTS = (*OWN.values(), PROBE, SHARED)
"""Families of which the best may become the default."""
PAIRED = "unlearning and D-TRAK"
_WITH_D_TRAK = {
    PAIRED: (USUAL.name,),
    "MUCS and D-TRAK": ("MUCS", "MUCS difference"),
    "latent similarity and D-TRAK (control)": ("latent similarity",),
}
LEARNT = "learning the query (control)"
SCRAMBLED = "scrambled signs (control)"


Pairs = Mapping[str, Mapping[str, tuple[str, str]]]
"""What a kind of pair is called -> the name of each -> its two variants."""


class Budget(NamedTuple):
    """How many draws each method is given: the same for all but MUCS, whose are its own.

    Attributes:
        draws: of each track.
        query_draws: of a query's gradient.
        fisher_draws: of each member, for the Fisher information.
        ways: of unlearning, "all" of them or "few": see `own_plan`.
    """

    draws: keys.Draws
    query_draws: int
    fisher_draws: int
    ways: str = "all"


def own_plan(groups: Mapping[str, str], budget: Budget) -> Plan:
    """The ways of unlearning: about the default, one thing changed at a time.

    Args:
        groups: of the model. Those of "transformer" and "all" are gone into; a model whose text
            is no cross-attention lacks some of the others.
        budget: draws, and whether few ways will do: around the transformer layers alone, a third
            of the passes.
    """
    few = budget.ways == "few"
    gone_into = ("transformer",) if few else ("transformer", "all")
    dampings = (0.001, 0.01, 0.1) if few else (0.001, 0.01, 0.1, 1.0)
    main = [Way(group, c) for group in gone_into for c in dampings]
    middle = [USUAL.way._replace(group=group) for group in gone_into]
    others = [USUAL.way._replace(group=group) for group in groups if group not in gone_into]
    others = [way for way in others if way.group == "all"] if few else others
    probes = [way._replace(fisher="probe") for way in middle]
    scrambled = USUAL.way._replace(scrambled=True)
    rises = (0.03, 0.1, 0.3, 1.0)
    if few:
        steps = [Step(middle[0], 0.1), Step(middle[0], 0.3), Step(middle[0], 0.1, shared=True)]
        return _plan((*main, *others, *probes, scrambled), steps, middle[0], rises, budget)
    steps = [Step(way, rise) for way in middle for rise in rises[1:]]
    steps += [Step(way, 0.1) for way in main if way.damping == 0.1]
    steps += [Step(way, 0.1) for way in (*others, *probes)]
    steps += [Step(way, 0.1, shared=True) for way in middle]
    return _plan((*main, *others, *probes, scrambled), steps, middle[0], rises, budget)


def _plan(
    found: tuple[Way, ...], steps: list[Step], middle: Way, rises: tuple[float, ...], budget: Budget
) -> Plan:
    """The plan, with a step the other way as a control."""
    return Plan(
        found,
        (*steps, Step(middle, 0.1, learn=True)),
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
    named = ways.variants(plan)
    rows = keys.Draws(budget.query_draws // budget.draws.strata, budget.draws.strata)
    grid = f"{budget} {trak.DIMENSION} {trak.DAMPINGS}"
    forgotten: dict[str, Any] = {}

    def tell(query: str, done: Forgotten) -> None:
        forgotten[query] = {n: getattr(done, n) for n in ("steps", "losses", "null")}

    works = {i: m["work"] for i, m in zip(task.corpus.ids, task.corpus.metadata, strict=True)}
    rivals = [(tracin.tracin(budget.draws, rows, _GROUPS), "tracin", f"{budget} {_GROUPS}")]
    for group in _GROUPS:
        rivals.append((trak.trak(budget.draws, rows, group=group), "trak", grid))
        rivals.append((trak.d_trak(budget.draws, rows, group=group), "trak", grid))
    rivals += [
        (mucs.mucs(ascent, report=tell), "mucs", f"{mucs.DRAWS} {_settings(ascent)}"),
        (likenesses.latent(), "likenesses", ""),
        (likenesses.caption(), "likenesses", ""),
    ]
    if world.heard is not None:
        heard = fingerprint.of_text(
            *(f"{i} {fingerprint.of_array(x)}" for i, x in sorted(world.heard.items()))
        )
        rivals.append((likenesses.log_mel(world.heard, world.heard), "likenesses", heard))
    rivals.append((likenesses.small_groups(works), "likenesses", repr(sorted(works.items()))))
    rivals.append((likenesses.chance(), "likenesses", ""))
    own = unlearning.unlearning(plan)

    def cost(task: Task, name: str) -> Passes:
        return ways.passes_of(plan, task, named[name])

    found = [Entry(own, "baselines.unlearning", repr(plan), cost, {})]
    for method, module, said in rivals:
        notes = forgotten if module == "mucs" else {}
        found.append(Entry(method, f"baselines.{module}", said, _cost(method), notes))
    return found, named


def pairs(method: Mapping[str, str]) -> Pairs:
    """Variants whose scores are added up with those of D-TRAK, all of its variants in turn.

    Unlearning is taken at its defaults, so that no kind of pair is chosen from more of them than
    its rivals. What likeness gains by D-TRAK is a control: any second opinion may be as good.

    Args:
        method: variant -> the name of its method.
    """
    rivals = [name for name, m in method.items() if m.startswith("D-TRAK")]
    return {
        kind: {
            f"{one} + {rival}": (one, rival) for one in ones if one in method for rival in rivals
        }
        for kind, ones in _WITH_D_TRAK.items()
    }


def families(variants: Mapping[str, str], own: Mapping[str, Variant]) -> dict[str, str]:
    """The family of every variant, those of unlearning first.

    Args:
        variants: variant -> the name of its method.
        own: those of unlearning's, from `entries`.
    """
    found = {name: _family(own[name]) for name in own if name in variants}
    order = {family: i for i, family in enumerate((*DEFAULTS, LEARNT))}
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
    return method.split()[0] if method.startswith(("TRAK", "D-TRAK")) else method


def _cost(method: Method) -> Callable[[Task, str], Passes]:
    return lambda task, _: method.passes(task)


def _settings(ascent: Ascent) -> str:
    """What decides the scores of MUCS."""
    own = ascent.untrained
    if isinstance(own, Mapping):
        leaves = sorted(tree.flatten(own).items())
        own = fingerprint.of_text(*(f"{path} {fingerprint.of_array(x)}" for path, x in leaves))
    return repr({**ascent._asdict(), "untrained": own})
