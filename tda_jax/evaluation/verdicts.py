"""What intervals say of a claim: it holds, it does not, or it is not decided.

A claim about a figure is decided by its whole interval over seeds, never by its mean: an interval
that crosses the threshold decides nothing, nor does a single seed.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tda_jax.evaluation.ranking import Interval

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided here"


class Finding(NamedTuple):
    """A claim, its verdict, and the figures that say so, one line each."""

    number: str
    claim: str
    verdict: str
    figures: tuple[str, ...]


def above(interval: Interval | None, threshold: float) -> str:
    """Whether a figure is above a threshold."""
    if interval is None or np.isnan(interval.low):
        return OPEN
    if interval.low > threshold:
        return HOLDS
    return FAILS if interval.high < threshold else OPEN


def below(interval: Interval | None, threshold: float) -> str:
    """Whether a figure is below a threshold."""
    return negated(above(interval, threshold))


def within(interval: Interval | None, low: float, high: float) -> str:
    """Whether a figure is between two bounds."""
    return all_of([above(interval, low), below(interval, high)])


def negated(verdict: str) -> str:
    """The verdict of the opposite claim."""
    return {HOLDS: FAILS, FAILS: HOLDS}.get(verdict, OPEN)


def all_of(verdicts: Iterable[str]) -> str:
    """Holds if all do; does not hold if one does not; of nothing, not decided."""
    found = list(verdicts)
    if FAILS in found:
        return FAILS
    return HOLDS if found and all(v == HOLDS for v in found) else OPEN


def any_of(verdicts: Iterable[str]) -> str:
    """Holds if one does; does not hold if none can."""
    return negated(all_of(negated(v) for v in verdicts))


def shown(interval: Interval | None, digits: int = 2) -> str:
    """The mean with its interval: "0.93 [0.88, 0.98]", or "none"."""
    if interval is None:
        return "none"
    mean = f"{interval.mean:.{digits}f}"
    if np.isnan(interval.low):
        return f"{mean} (one seed)"
    return f"{mean} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
