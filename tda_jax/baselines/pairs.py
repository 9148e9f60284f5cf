"""The scores of two methods as one.

Unlearning reads what forgetting does to a loss, its curvature included, D-TRAK what members have to
do with an output (`trak`): where they err in different ways, their sum errs less. The README says
where retraining found that it does.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64

from tda_jax.errors import InputError

_GRAIN = 1e-12  # share of the mean within which scores differ by rounding alone


def sum_of_both(
    one: Float[np.ndarray, "queries n"],
    other: Float[np.ndarray, "queries n"],
    over: Bool[np.ndarray, "queries n"],
) -> Float64[np.ndarray, "queries n"]:
    """The sum of two methods' scores, each of them standardised for each query.

    Args:
        one: scores of all tracks; higher is more support, and the unit does not matter.
        other: likewise, by another method.
        over: the tracks whose mean is 0 and whose standard deviation is 1: members, without the
            query if it is one itself, whose own score would be the scale of all others.

    Returns:
        A track that a method cannot score is nan; but a method that scores none of `over`, or all
        of them alike, leaves the query to the other.

    Raises:
        InputError: a score is infinite.
    """
    for scores in (one, other):
        if np.isinf(scores).any():
            raise InputError("a score is infinite; give finite scores, and nan where there is none")
    return _standardised(one, over) + _standardised(other, over)


def _standardised(scores: np.ndarray, over: np.ndarray) -> np.ndarray:
    told = over & ~np.isnan(scores)
    count = np.maximum(told.sum(-1, keepdims=True), 1)
    middle = np.where(told, scores, 0).sum(-1, keepdims=True, dtype=np.float64) / count
    apart = np.where(told, scores - middle, 0)
    spread = np.sqrt((apart**2).sum(-1, keepdims=True) / count)
    alike = spread <= _GRAIN * np.abs(middle)
    return np.where(alike, 0, (scores - middle) / np.where(alike, 1, spread))
