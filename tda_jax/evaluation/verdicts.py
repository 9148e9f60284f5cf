"""What intervals say of a claim: it holds, it does not, or it is not decided.

A claim about a figure is decided by its spread over seeds, never by its mean: an interval that
crosses the threshold decides nothing, nor does a single seed. A claim that is sought in any of k
figures is found in one of them by luck k times as often, so each is then asked for k times as much
(Bonferroni); likewise where one of k figures would refute it.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tda_jax.evaluation.ranking import Interval, chance_of_more

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided here"
_RISK = 0.025  # of a verdict by luck, on either side: where a 95 % interval ends


class Finding(NamedTuple):
    """A claim, its verdict, and the figures that say so, one line each."""

    number: str
    claim: str
    verdict: str
    figures: tuple[str, ...]


class Evidence(NamedTuple):
    """How likely figures like these are by luck.

    Attributes:
        holds: p-value of what says that the claim holds.
        fails: p-value of what says that it does not.
    """

    holds: float
    fails: float


NOTHING = Evidence(1.0, 1.0)
REFUTED = Evidence(1.0, 0.0)


def decided(evidence: Evidence) -> str:
    """The verdict."""
    if evidence.holds < _RISK:
        return HOLDS
    return FAILS if evidence.fails < _RISK else OPEN


def above(interval: Interval | None, threshold: float) -> Evidence:
    """Whether a figure is above a threshold."""
    if interval is None:
        return NOTHING
    opposite = Interval(-interval.mean, -interval.high, -interval.low, interval.count)
    return Evidence(chance_of_more(interval, threshold), chance_of_more(opposite, -threshold))


def below(interval: Interval | None, threshold: float) -> Evidence:
    """Whether a figure is below a threshold."""
    return _negated(above(interval, threshold))


def within(interval: Interval | None, low: float, high: float) -> Evidence:
    """Whether a figure is between two bounds."""
    return all_of([above(interval, low), below(interval, high)])


def all_of(found: Iterable[Evidence]) -> Evidence:
    """Holds if all do; does not hold if one does not; of nothing, nothing."""
    each = list(found)
    if not each:
        return NOTHING
    return Evidence(max(e.holds for e in each), min(1.0, len(each) * min(e.fails for e in each)))


def any_of(found: Iterable[Evidence]) -> Evidence:
    """Holds if one does; does not hold if none can."""
    return _negated(all_of(_negated(e) for e in found))


def _negated(evidence: Evidence) -> Evidence:
    return Evidence(evidence.fails, evidence.holds)


def shown(interval: Interval | None, digits: int = 2) -> str:
    """The mean with its interval: "0.93 [0.88, 0.98]", or "none"."""
    if interval is None:
        return "none"
    mean = f"{interval.mean:.{digits}f}"
    if np.isnan(interval.low):
        return f"{mean} (one seed)"
    return f"{mean} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
