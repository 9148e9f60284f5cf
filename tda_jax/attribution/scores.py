"""From per-draw arrays of (tracks, replicates, strata) to one score and standard error a track.

Higher is more support. Everything here is numpy in float64: a score is a small difference.

Draw (r, s) of a track is replicate r of stratum s of the schedule. The R draws of a stratum are
independent; strata are grouped into `tda_jax.keys.BINS` timestep bins, and a score is a weighted
sum of the bins' means. Which weighting is true is open, so there are three:

    uniform        the mean over bins of the rise
    standardised   the mean over bins of rise / its standard deviation over the corpus's tracks
    ratio          the mean over bins of rise / the track's own loss before

A few timesteps carry most of the loss, and so of the uniform score; the others level them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from tda_jax.errors import InputError
from tda_jax.keys import BINS, bin_of

WEIGHTINGS = ("uniform", "standardised", "ratio")


class Linearised(NamedTuple):
    """The per-draw rise that a quadratic in the learning rate predicts, in its two parts.

    Only the odd part carries the sign of the step: it turns with the learning rate's sign, the
    even part does not.

    Attributes:
        odd: (n, R, S), learning rate · a.
        even: (n, R, S), learning rate² · b.
    """

    odd: Float64[np.ndarray, "n R S"]
    even: Float64[np.ndarray, "n R S"]

    @property
    def total(self) -> Float64[np.ndarray, "n R S"]:
        """Both parts together: what stands for the exact rise."""
        return self.odd + self.even


class Score(NamedTuple):
    """Scores of tracks, nan for a track with a draw that is not finite.

    Attributes:
        value: (n,).
        standard_error: (n,), of the sweep's draws alone, not of the noise in the step.
    """

    value: Float64[np.ndarray, " n"]
    standard_error: Float64[np.ndarray, " n"]


def exact(
    before: Float[np.ndarray, "n R S"], after: Float[np.ndarray, "n R S"]
) -> Float64[np.ndarray, "n R S"]:
    """The rise of each draw's loss: after - before, on the same noise and timestep."""
    return after.astype(np.float64) - before.astype(np.float64)


def linearised(
    a: Float[np.ndarray, "n R S"], b: Float[np.ndarray, "n R S"], learning_rate: float
) -> Linearised:
    """The rise of each draw's loss at a learning rate, from its slope a and curvature b.

    Raises:
        InputError: the learning rate is not finite.
    """
    if not np.isfinite(learning_rate):
        raise InputError(f"learning rate {learning_rate} is not finite; give a finite number")
    lr = np.float64(learning_rate)
    return Linearised(lr * a.astype(np.float64), lr * lr * b.astype(np.float64))


def per_bin(values: Float[np.ndarray, "n R S"]) -> Float64[np.ndarray, "n 10"]:
    """The mean over the draws of each timestep bin, 0 (cleanest) .. 9 (noisiest).

    Raises:
        InputError: the strata do not fill the bins evenly.
    """
    n, replicates, strata = values.shape
    bin_of(strata)  # refuses strata that do not fill the bins; they are in order
    return values.astype(np.float64).reshape(n, replicates, BINS, strata // BINS).mean(axis=(1, 3))


def score(
    values: Float[np.ndarray, "n R S"],
    weighting: str = "uniform",
    before: Float[np.ndarray, "_ _ _"] | None = None,
) -> Score:
    """Scores under a weighting of the timestep bins, with their paired standard errors.

    The standard error takes the bins' divisors as constants. It comes from the variance *within*
    strata alone, SE² = Σ_s w_s² · var_s / R: how strata differ is no noise, since each is always
    drawn R times, and the spread over all draws would overstate it.

    Args:
        values: per-draw rises, `exact` or a part of `linearised`.
        weighting: one of `WEIGHTINGS`. "standardised" leaves a bin out of the mean if all tracks
            have the same rise in it, which ranks nothing; without any other bin, scores are nan.
            It depends on which tracks are scored together.
        before: the per-draw losses before, which "ratio" divides by. A track that has none in
            some bin is scored nan.

    Raises:
        InputError: fewer than two replicates, an unknown weighting, a ratio without the losses
            before, losses of another shape, or strata that do not fill the bins evenly.
    """
    n, replicates, strata = values.shape
    weights = bin_weights(values, weighting, before)
    if replicates < 2:
        raise InputError(
            "one draw for each stratum tells nothing of its noise; give at least 2 replicates"
        )
    used = ~np.isnan(weights).any(axis=1)
    value, error = np.full(n, np.nan), np.full(n, np.nan)
    kept, weights = values[used].astype(np.float64), weights[used]
    value[used] = weighted(kept, weights)
    by_stratum = weights[:, bin_of(strata)] * (BINS / strata)
    variance = kept.var(axis=1, ddof=1)
    error[used] = np.sqrt(np.sum(by_stratum**2 * variance, axis=1) / replicates)
    return Score(value, error)


def bin_weights(
    values: Float[np.ndarray, "n R S"],
    weighting: str = "uniform",
    before: Float[np.ndarray, "_ _ _"] | None = None,
) -> Float64[np.ndarray, "n 10"]:
    """The weight that `score` gives to the mean of each timestep bin.

    Args:
        values: see `score`; likewise the others.
        weighting: one of `WEIGHTINGS`.
        before: the per-draw losses before, which "ratio" divides by.

    Returns:
        (n, 10); nan for a track that has no score.

    Raises:
        InputError: see `score`.
    """
    _refuse(values, weighting, before)
    used = _finite(values)
    if weighting == "ratio":
        used &= _finite(before)
    weights = np.full((len(values), BINS), np.nan)
    rise, lost = per_bin(values[used]), None if before is None else per_bin(before[used])
    weights[used] = _bin_weights(weighting, rise, lost)
    return weights


def weighted(
    values: Float[np.ndarray, "n R S"], weights: Float[np.ndarray, "n 10"]
) -> Float64[np.ndarray, " n"]:
    """Per-draw values under given weights: parts of a score under the weights of the whole.

    Args:
        values: per-draw rises of any number of replicates.
        weights: from `bin_weights`.
    """
    return np.sum(weights * per_bin(values), axis=1)


def not_finite(ids: Sequence[str], *values: Float[np.ndarray, "n ..."]) -> list[str]:
    """The tracks with a draw that is nan or infinite in any of some arrays, in order of `ids`."""
    bad = np.zeros(len(ids), bool)
    for array in values:
        bad |= ~_finite(array)
    return [ids[i] for i in np.flatnonzero(bad)]


def jackknife_standard_error(
    leave_one_out: Float[np.ndarray, "B n"],
) -> Float64[np.ndarray, " n"]:
    """Standard error of scores from the noise in the step, by deleting one block at a time.

    SE² = (B-1)/B · Σ_b (score without block b - their mean)² (Efron & Stein 1981). For scores
    linear in the blocks, such as the odd part, its square is unbiased. For the even part, a mean
    over pairs of unlike blocks, it is too large: the share of the variance that is quadratic in
    the blocks' noise counts 2 (B-1) / (B-2) times.

    Args:
        leave_one_out: (B, n), row b the scores without block b of B equal blocks of query draws.

    Raises:
        InputError: fewer than two blocks.
    """
    blocks = leave_one_out.shape[0]
    if blocks < 2:
        raise InputError(f"a jackknife over {blocks} block(s); give at least 2")
    scores = leave_one_out.astype(np.float64)
    return np.sqrt((blocks - 1) * scores.var(axis=0))


def _finite(values: np.ndarray) -> np.ndarray:
    """Which tracks have finite draws only, (n,)."""
    return np.isfinite(values).reshape(len(values), -1).all(axis=1)


def _bin_weights(weighting: str, rise: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """The weight of each bin's mean, (n, 10)."""
    if weighting == "uniform":
        return np.full(rise.shape, 1 / BINS)
    if weighting == "ratio":
        return 1 / np.where(before > 0, BINS * before, np.nan)
    if len(rise) == 0:
        return rise
    differs = np.ptp(rise, axis=0) > 0  # exact, where rounding may leave a spread of equal values
    if not differs.any():
        return np.full(rise.shape, np.nan)
    weights = np.divide(1 / differs.sum(), rise.std(axis=0), out=np.zeros(BINS), where=differs)
    return np.broadcast_to(weights, rise.shape)


def _refuse(values: np.ndarray, weighting: str, before: np.ndarray | None) -> None:
    if weighting not in WEIGHTINGS:
        raise InputError(f"unknown weighting {weighting!r}; choose one of {list(WEIGHTINGS)}")
    if weighting == "ratio" and before is None:
        raise InputError("the ratio divides by the losses before, and there are none; give them")
    if before is not None and before.shape != values.shape:
        raise InputError(
            f"losses before of shape {before.shape} for rises of shape {values.shape}; give those "
            "of the same draws"
        )
    bin_of(values.shape[2])
