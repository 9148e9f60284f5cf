"""What becomes of a query's loss when the tracks a method scores highest are not trained on."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64

from tda_jax.errors import InputError
from tda_jax.evaluation import bootstrap
from tda_jax.evaluation.ranking import Interval


def top(
    scores: Float[np.ndarray, " n"], ids: Sequence[str], members: Bool[np.ndarray, " n"], k: int
) -> tuple[str, ...]:
    """The k members with the highest scores, the highest first.

    Ties go by id, whatever order the tracks stand in; members without a score (nan) come last.

    Raises:
        InputError: k is not in 1 .. number of members.
    """
    rows = np.flatnonzero(members)
    if not 1 <= k <= len(rows):
        raise InputError(f"top {k} of {len(rows)} members; give k in 1 .. {len(rows)}")
    unknown = np.isnan(scores)
    height = np.where(unknown, 0.0, scores)
    order = sorted(rows, key=lambda i: (bool(unknown[i]), -float(height[i]), ids[i]))
    return tuple(ids[i] for i in order[:k])


def rises(
    removed: Float[np.ndarray, "seeds queries"], full: Float[np.ndarray, "seeds queries"]
) -> Float64[np.ndarray, " queries"]:
    """How far each query's loss rises without its tracks: the mean over seeds.

    Args:
        removed: losses of each query under the model that was trained without its tracks.
        full: losses under the model of the same seed that was trained on all.

    Returns:
        In the unit of the losses; above 0 where the tracks had supported the query.
    """
    return (removed.astype(np.float64) - full.astype(np.float64)).mean(axis=0)


def compare_removals(
    by_method: Mapping[str, Float[np.ndarray, " queries"]],
    reference: str,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[Interval, Interval]]:
    """The mean rise of each method, and how far the reference's is above it.

    Args:
        by_method: from `rises`, of the same queries in the same order; nan is left out.
        reference: the method that the others are held against.
        draws: of the bootstrap over queries, the same for all methods.
        seed: of the bootstrap.

    Returns:
        By method: the mean over queries, and the mean of reference - method over the queries for
        which both have a rise, whose interval is of the paired difference.

    Raises:
        InputError: the reference is not among the methods, or they have other numbers of queries.
    """
    if reference not in by_method:
        raise InputError(f"the reference {reference!r} is no method; give one of {[*by_method]}")
    sizes = {name: len(values) for name, values in by_method.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"rises of {sizes} queries; give those of the same queries")
    queries = bootstrap.multiplicities(sizes[reference], draws, seed, "queries")

    def over(values: np.ndarray) -> Interval:
        drawn = bootstrap.both(np.broadcast_to(values, queries.shape), queries)
        return bootstrap.interval(bootstrap.mean(values), drawn)

    known = {name: values.astype(np.float64) for name, values in by_method.items()}
    return {name: (over(v), over(known[reference] - v)) for name, v in known.items()}
