"""What a score means: against tracks that were not trained on, and against other queries.

Zero is not neutral: almost every track scores above it. Decoys, tracks of the same source,
processing and lengths that the model never saw, say what scores come without training.

They say it of tracks that could be exchanged with them. A track that is like the query beats
decoys that are not, trained on or not: to tell training from likeness, decoys must be as like the
query as the members they are held against.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from tda_jax.errors import InputError
from tda_jax.examples import Corpus, lengths_and_levels

FEWEST_REFERENCES = 4
_NORMAL_MAD = 1.4826  # standard deviation / median absolute deviation of a normal distribution
_BLOCK = 4096  # tracks whose scores for all queries are sorted together


_UNKNOWN = (math.nan, math.nan)


class Difference(NamedTuple):
    """How far members and decoys differ in a factor.

    Attributes:
        standardised: (mean of members - mean of decoys) / pooled standard deviation.
        standard_error: of that, under no assumption but that tracks are independent and many
            (Hedges & Olkin 1985). A difference within twice of it may be chance.
    """

    standardised: float
    standard_error: float


def empirical_p_values(
    scores: Float[np.ndarray, " n"], members: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """How often a track that was not trained on scores as high: one p-value a track.

    p_i = (1 + #{decoys with a score >= s_i}) / (1 + M). Ties count against the track. The p-value
    of a decoy leaves that decoy out of both counts. It is valid, P(p <= u) <= u, for a track that
    could be exchanged with the decoys.

    Args:
        scores: higher is more support; nan is left out.
        members: False for decoys.

    Returns:
        (n,), in 1/(1+M) .. 1; nan for a nan score, and where there is no decoy to compare with.
    """
    scores = scores.astype(np.float64)
    decoys = np.sort(scores[~members & ~np.isnan(scores)])
    others = len(decoys) - (~members).astype(np.int64)  # a decoy is not compared with itself
    reached = len(decoys) - np.searchsorted(decoys, scores, side="left") - ~members
    p = (1 + reached) / np.maximum(1 + others, 1)
    return np.where(np.isnan(scores) | (others < 1), np.nan, p)


def q_values(
    scores: Float[np.ndarray, " n"], members: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """The target-decoy false-discovery rate at which each member would be let in.

    Of T members and M decoys, letting in all with a score >= s is expected to let in
    T · (1 + #{decoys >= s}) / (1 + M) members for nothing; FDR(s) is their share of the members
    let in, and q_i the least FDR(s) over s <= s_i. These are the Benjamini-Hochberg adjusted
    values of `empirical_p_values`, and letting in q <= u keeps the expected share of false ones
    at u at most (Bates et al. 2023, "Testing for outliers with conformal p-values", Ann. Stat. 51).

    Args:
        scores: higher is more support; nan is left out.
        members: False for decoys.

    Returns:
        (n,); nan for decoys, for a nan score, and for all where there is no decoy. No q is below
        T / (1 + M) / #{members let in}: few decoys cannot single out few members.
    """
    result = np.full(len(scores), np.nan)
    targets = members & ~np.isnan(scores)
    p, s = empirical_p_values(scores, members)[targets], scores[targets].astype(np.float64)
    order = np.argsort(s)
    let_in = len(s) - np.searchsorted(s[order], s, side="left")
    rate = p * len(s) / let_in
    adjusted = np.empty_like(rate)
    adjusted[order] = np.minimum.accumulate(rate[order])  # from the lowest score up
    result[targets] = adjusted
    return result


def minus_common(
    scores: Float[np.ndarray, "queries n"],
    reference: Float[np.ndarray, "references tracks"] | None = None,
) -> Float64[np.ndarray, "queries n"]:
    """Takes out what a track scores for any query: (score - median) / (1.4826 · MAD) by track.

    Median and median absolute deviation are over reference queries. Tracks that come up for
    every query are brought down; the unit is a standard deviation over queries, were they normal.

    Args:
        scores: of the run's queries.
        reference: scores of the same tracks for other queries; by default the run's queries are
            the references, each query itself left out of its own.

    Returns:
        Of the shape of `scores`. Nan where the score is nan, where a track has fewer than 4
        reference scores (nan ones do not count), and where their MAD is 0.

    Raises:
        InputError: the reference is of other tracks.
    """
    scores = np.asarray(scores, np.float64)
    if reference is not None:
        if reference.shape[1] != scores.shape[1]:
            raise InputError(
                f"reference scores of {reference.shape[1]} tracks for {scores.shape[1]}; give "
                "those of the same tracks"
            )
        return _standardised(scores, reference.astype(np.float64))
    result = np.empty_like(scores)
    for start in range(0, scores.shape[1], _BLOCK):
        here = slice(start, start + _BLOCK)
        result[:, here] = _against_others(scores[:, here])
    return result


def decoy_match(corpus: Corpus, loss_before: Float[np.ndarray, " n"]) -> dict[str, Difference]:
    """Whether the decoys are like the members in all but training.

    Args:
        corpus: members and decoys.
        loss_before: their mean losses before unlearning.

    Returns:
        For "valid_frames" and "latent_rms" (over valid frames), which must match, and for
        "loss_before", which training itself lowers for the members: there a difference says how
        far the model has memorised, and only one beside an unmatched other factor is suspect.
        Nan where either side has fewer than 2 tracks or no track differs from another; infinite
        where tracks differ from those of the other side alone.
    """
    frames, rms = lengths_and_levels(corpus).T
    factors = {
        "valid_frames": frames,
        "latent_rms": rms,
        "loss_before": loss_before.astype(np.float64),
    }
    members = corpus.members
    return {name: difference(f[members], f[~members]) for name, f in factors.items()}


def _standardised(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Scores (..., n) against references (references, n)."""
    enough = (~np.isnan(reference)).sum(axis=0) >= FEWEST_REFERENCES
    centre, spread = np.full((2, reference.shape[1]), np.nan)
    centre[enough] = np.nanmedian(reference[:, enough], axis=0)
    spread[enough] = np.nanmedian(np.abs(reference - centre)[:, enough], axis=0)
    spread[spread == 0] = np.nan
    return (scores - centre) / (_NORMAL_MAD * spread)


def _against_others(scores: np.ndarray) -> np.ndarray:
    """Scores (queries, n), each against those of the other queries for that track."""
    centre = _median_of_others(scores)
    # Leaving one score out puts the median of the rest in one of three places at most.
    low, high = np.fmin.reduce(centre), np.fmax.reduce(centre)
    between = np.fmax.reduce(np.where((low < centre) & (centre < high), centre, np.nan))
    spread = np.full_like(scores, np.nan)
    for place in (low, between, high):
        around = _median_of_others(np.abs(scores - place))
        spread = np.where(centre == place, around, spread)
    few = (~np.isnan(scores)).sum(axis=0) <= FEWEST_REFERENCES
    spread[(spread == 0) | few] = np.nan
    return (scores - centre) / (_NORMAL_MAD * spread)


def _median_of_others(values: np.ndarray) -> np.ndarray:
    """For each entry of a column, the median of the column's others.

    A column is sorted once for all of its entries: an entry at or below the middle moves the
    middle of the others one place up. Nan is left out, and stays nan.
    """
    order = np.argsort(values, axis=0)  # nan come last
    rank = np.argsort(order, axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    others = (~np.isnan(values)).sum(axis=0) - 1
    middle = [np.maximum(i, 0) for i in ((others - 1) // 2, others // 2)]
    last = len(values) - 1
    low, high = (
        np.take_along_axis(ordered, np.minimum(i + (rank <= i), last), axis=0) for i in middle
    )
    return np.where(np.isnan(values) | (others < 1), np.nan, (low + high) / 2)


def difference(
    members: Float[np.ndarray, " members"], decoys: Float[np.ndarray, " decoys"]
) -> Difference:
    """How far the means lie apart, in standard deviations; nan with fewer than 2 of a side."""
    members, decoys = (x[~np.isnan(x)] for x in (members, decoys))
    if min(len(members), len(decoys)) < 2:
        return Difference(*_UNKNOWN)
    pooled = np.sqrt((members.var(ddof=1) + decoys.var(ddof=1)) / 2)
    if pooled == 0:
        apart = float(members.mean() - decoys.mean())
        return Difference(math.copysign(math.inf, apart), 0.0) if apart else Difference(*_UNKNOWN)
    d = (members.mean() - decoys.mean()) / pooled
    both = 1 / len(members) + 1 / len(decoys) + d**2 / (2 * (len(members) + len(decoys)))
    return Difference(float(d), float(np.sqrt(both)))
