"""Ranks and what is read off them. Higher scores are better; nan scores take no part."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from tda_jax.errors import InputError


class Interval(NamedTuple):
    """A mean over seeds with its t-interval.

    Attributes:
        mean: of the values that are not nan.
        low: lower end; nan for a single value, whose spread is unknown.
        high: upper end.
        count: values that are not nan.
    """

    mean: float
    low: float
    high: float
    count: int


def ranks(scores: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """1-based ranks: the highest score has rank 1, ties share the mean of their ranks.

    A nan score has rank nan, and the others are ranked without it.
    """
    result = np.full(len(scores), np.nan)
    known = ~np.isnan(scores)
    ordered = np.sort(scores[known])
    above = len(ordered) - np.searchsorted(ordered, scores[known], side="right")
    reached = len(ordered) - np.searchsorted(ordered, scores[known], side="left")
    result[known] = (above + 1 + reached) / 2  # the mean of above + 1 .. reached
    return result


def percentiles(scores: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """100 for the best score, 0 for the worst, evenly between by rank; a lone score has 100."""
    rank = ranks(scores)
    known = int((~np.isnan(rank)).sum())
    return 100 * (1 - (rank - 1) / max(known - 1, 1))


def auc(better: Float[np.ndarray, " n"], worse: Float[np.ndarray, " m"]) -> float:
    """How often a score of one set is above one of the other; a tie counts one half.

    The Mann-Whitney statistic over its maximum: 1 is perfect, 0.5 is chance. Nan if either set
    has no score.
    """
    better, worse = better[~np.isnan(better)], np.sort(worse[~np.isnan(worse)])
    if not (len(better) and len(worse)):
        return float("nan")
    below = np.searchsorted(worse, better, side="left")
    reached = np.searchsorted(worse, better, side="right")
    return float((below + reached).sum() / (2 * len(better) * len(worse)))


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Rank correlation, with mean ranks for ties, over the positions where both have a score.

    Nan if fewer than 2 such positions are left or either side is all ties.
    """
    both = ~np.isnan(x) & ~np.isnan(y)
    if both.sum() < 2:
        return float("nan")
    u, v = (r - r.mean() for r in (ranks(x[both]), ranks(y[both])))
    scale = np.sqrt((u @ u) * (v @ v))
    return float(u @ v / scale) if scale > 0 else float("nan")


def top_overlap(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], k: int) -> float:
    """The share of the k best by x that are among the k best by y.

    Over the positions where both have a score. Where a tie straddles rank k, the share expected
    if each side breaks its ties at random: ties never pass for agreement.

    Raises:
        InputError: k is not in 1 .. number of such positions.
    """
    both = ~np.isnan(x) & ~np.isnan(y)
    if not 1 <= k <= both.sum():
        raise InputError(f"top {k} of {both.sum()} scores; give k in 1 .. {both.sum()}")
    return float(_in_top(x[both], k) @ _in_top(y[both], k) / k)


def mean_interval(values: Float[np.ndarray, " n"], confidence: float = 0.95) -> Interval:
    """The mean over independent seeds and its two-sided Student t-interval.

    Raises:
        InputError: no value is left, or the confidence is not between 0 and 1.
    """
    values = values[~np.isnan(values)].astype(np.float64)
    if not len(values):
        raise InputError("a mean of no values; give one that is not nan")
    if not 0 < confidence < 1:
        raise InputError(f"confidence = {confidence}; give a number between 0 and 1")
    mean, count = float(values.mean()), len(values)
    if count == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    error = values.std(ddof=1) / np.sqrt(count)
    half = float(_t_quantile(confidence, count - 1) * error)
    return Interval(mean, mean - half, mean + half, count)


def chance_of_more(interval: Interval, threshold: float) -> float:
    """The chance of a mean as high as this or higher, were the truth the threshold (Student t).

    Args:
        interval: from `mean_interval`, at its default confidence.
        threshold: what the mean is held against.

    Returns:
        A one-sided p-value; 1 for a single value, which shows nothing.
    """
    if np.isnan(interval.low):
        return 1.0
    away, half = interval.mean - threshold, (interval.high - interval.low) / 2
    if half == 0.0:
        return 0.0 if away > 0 else 1.0
    degrees = interval.count - 1
    t = away / half * _t_quantile(0.95, degrees)
    within = _t_within(float(np.arctan(abs(t) / np.sqrt(degrees))), degrees)
    return float((1 - within) / 2 if away > 0 else (1 + within) / 2)


def _in_top(scores: np.ndarray, k: int) -> np.ndarray:
    """The chance that each is among the k best, if ties are broken at random."""
    bar = np.sort(scores)[-k]
    above, tied = scores > bar, scores == bar
    return above + tied * (k - above.sum()) / tied.sum()


def _t_quantile(confidence: float, degrees: int) -> float:
    """Where P(|T| <= t) = confidence, by bisection over the angle arctan(t / sqrt(degrees))."""
    low, high = 0.0, np.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        if _t_within(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return float(np.tan(low) * np.sqrt(degrees))


def _t_within(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) · tan(angle)): Abramowitz & Stegun 1964, 26.7.3 and 26.7.4."""
    sine, cosine = np.sin(angle), np.cos(angle)
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for i in range(odd, degrees - 1, 2):  # powers of the cosine up to degrees - 2
        total += term
        term *= cosine**2 * (i + 1) / (i + 2)
    return 2 / np.pi * (angle + sine * total) if odd else sine * total
