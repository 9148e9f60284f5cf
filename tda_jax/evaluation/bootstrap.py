"""A two-way bootstrap: over the subsets that were retrained on and over the queries.

A draw says how often each subset and each query counts. All methods are given the same draws, so
the difference of two methods is paired: what moves both of them alike is not in its interval.
"""

import numpy as np
from jaxtyping import Float, Float64, Int64, Real

from tda_jax import named_draws
from tda_jax.errors import InputError
from tda_jax.evaluation.ranking import Interval

_ENDS = (2.5, 97.5)  # percentiles of a 95 % interval


def multiplicities(
    count: int, draws: int, seed: int, name: str
) -> Int64[np.ndarray, "draws count"]:
    """How often each of `count` things is drawn, `count` times with replacement.

    Args:
        count: of the things.
        draws: rows, each of which sums to `count`.
        seed: of the draws.
        name: of what is drawn; other names have other draws.

    Raises:
        InputError: there is nothing to draw from, or no draw.
    """
    if count < 1 or draws < 1:
        raise InputError(f"{draws} draws from {count}; give one at least of both")
    chances = np.full(count, 1 / count)
    return named_draws.generator(seed, name).multinomial(count, chances, size=draws)


def both(
    values: Float[np.ndarray, "draws ... queries"],
    queries: Real[np.ndarray, "draws queries"],
) -> Float64[np.ndarray, "draws ..."]:
    """The mean over resampled queries of values under resampled subsets.

    Args:
        values: of each query, under a draw of the subsets; nan is left out.
        queries: how often each query counts.

    Returns:
        Nan where a draw has no query with a value.
    """
    known = ~np.isnan(values)
    times = queries.astype(np.float64)
    total = np.einsum("b...q,bq->b...", np.where(known, values, 0.0), times)
    count = np.einsum("b...q,bq->b...", known, times)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def mean(values: Float[np.ndarray, " queries"]) -> float:
    """Over the queries as they are; nan ones are left out, and of no other it is nan."""
    return float(both(values[None], np.ones((1, len(values))))[0])


def interval(estimate: float, drawn: Float[np.ndarray, " draws"]) -> Interval:
    """The 95 % percentile interval of draws.

    Args:
        estimate: without resampling.
        drawn: the same under each draw; those that are not finite are left out.

    Returns:
        The estimate as the mean, the ends, and the number of draws that are finite; the ends are
        nan if none is.
    """
    finite = drawn[np.isfinite(drawn)]
    low, high = np.percentile(finite, _ENDS) if len(finite) else (np.nan, np.nan)
    return Interval(estimate, float(low), float(high), len(finite))
