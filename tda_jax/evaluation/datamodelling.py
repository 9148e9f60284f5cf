"""Linear datamodelling score: do summed scores tell the losses of models trained on subsets?

Each subset of the tracks is retrained on. A method predicts a query's loss under that model by the
scores of the tracks that were kept; the score of the method is the rank correlation of prediction
and loss over the subsets (Ilyas et al. 2022, arXiv 2202.00622; Park et al. 2023, arXiv 2303.14186).
"""

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Float64, Real

from tda_jax.errors import InputError

_CHUNK_BYTES = 2**25  # of the ranks that are held at once
_GRAIN = 2.0**-44  # sums that differ by less than this share differ by rounding alone
_NOTHING_LEFT = 1e-9  # share of a variance that is rounding


def predicted(
    scores: Float[np.ndarray, "methods queries tracks"], kept: Bool[np.ndarray, "subsets tracks"]
) -> Float64[np.ndarray, "methods queries subsets"]:
    """The sum of the scores of the tracks that each subset keeps.

    Args:
        scores: higher is more support. A nan counts as the mean of that query's other scores.
        kept: True for the tracks that are trained on.

    Returns:
        In the unit of the scores, to 13 digits of their summed size, so that equal sums tie in
        whatever order they are added up. Nan for a query to which a method gives no score.

    Raises:
        InputError: a score is infinite.
    """
    if np.isinf(scores).any():
        method, query, track = np.argwhere(np.isinf(scores))[0]
        raise InputError(
            f"method {method} scores track {track} infinite for query {query}; give finite "
            "scores, and nan where there is none"
        )
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0).sum(axis=2, dtype=np.float64)
    count = known.sum(axis=2)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    filled = np.where(known, scores.astype(np.float64), mean[..., None])
    sums = filled @ kept.T.astype(np.float64)
    grain = np.abs(filled).sum(axis=2, keepdims=True) * _GRAIN
    grain[grain == 0] = 1.0
    return np.round(sums / grain) * grain


def lds(
    predicted: Float[np.ndarray, "methods queries subsets"],
    losses: Float[np.ndarray, "subsets queries"],
    weights: Real[np.ndarray, "draws subsets"] | None = None,
) -> Float64[np.ndarray, "methods queries"] | Float64[np.ndarray, "draws methods queries"]:
    """Spearman correlation over subsets of a prediction with minus the loss.

    Args:
        predicted: from `predicted`: higher where more support is kept.
        losses: of each query under the model of each subset.
        weights: how often each subset counts, not negative; a draw of a bootstrap has integers
            and gives the correlation of the data with each row repeated that often.

    Returns:
        -1 .. 1, with mean ranks for ties; a first axis only with weights. Nan where the
        predictions or the losses of a query are all the same, or one of them is nan.
    """
    return partial_lds(predicted, losses, np.empty((0, *losses.T.shape)), weights)


def partial_lds(
    predicted: Float[np.ndarray, "methods queries subsets"],
    losses: Float[np.ndarray, "subsets queries"],
    covariates: Float[np.ndarray, "covariates queries subsets"],
    weights: Real[np.ndarray, "draws subsets"] | None = None,
) -> Float64[np.ndarray, "methods queries"] | Float64[np.ndarray, "draws methods queries"]:
    """What a prediction tells of the loss beyond covariates: the partial Spearman correlation.

    The ranks of predictions and of losses are each regressed on the ranks of the covariates, with
    an intercept, and what is left is correlated.

    Args:
        predicted: from `predicted`.
        losses: of each query under the model of each subset.
        covariates: what else could tell the loss, such as the summed likeness of the kept tracks.
            They may be constant or depend on each other.
        weights: as in `lds`.

    Returns:
        As `lds`. Nan also where the covariates' ranks leave nothing of either side's.

    Raises:
        InputError: a covariate is nan.
    """
    if np.isnan(covariates).any():
        which, query, _ = np.argwhere(np.isnan(covariates))[0]
        raise InputError(f"covariate {which} is nan for query {query}; fill it in or leave it out")
    methods, queries, subsets = predicted.shape
    drawn = np.ones((1, subsets)) if weights is None else weights
    w = drawn.T.astype(np.float64)
    along = _directions(covariates, w)
    truth = _centred_ranks(-losses.T, w)
    known = np.einsum("cqsb,qsb->cqb", along, truth)
    rest = w * truth - np.einsum("cqb,cqsb->qsb", known, along)
    spread = _left(np.einsum("qsb,sb->qb", truth**2, w), known)
    result = np.empty((len(drawn), methods, queries))
    chunk = max(1, _CHUNK_BYTES // (8 * queries * subsets * max(len(drawn), subsets)))
    for start in range(0, methods, chunk):
        part = slice(start, start + chunk)
        ranks = _centred_ranks(predicted[part], w)
        shared = np.einsum("mqsb,qsb->mqb", ranks, rest)
        known = np.einsum("cqsb,mqsb->cmqb", along, ranks)
        ranks *= ranks
        own = _left(np.einsum("mqsb,sb->mqb", ranks, w), known)
        result[:, part] = np.moveaxis(shared / np.sqrt(own * spread), -1, 0)
    return result[0] if weights is None else result


def reliability(
    losses: Float[np.ndarray, "seeds subsets queries"],
    weights: Real[np.ndarray, "draws subsets"] | None = None,
) -> Float64[np.ndarray, " queries"] | Float64[np.ndarray, "draws queries"]:
    """The share of the mean loss over seeds, as it varies over subsets, that is not of the seeds.

    Spearman correlation of the mean losses of two halves of the seeds, averaged over all such
    pairs of halves (an odd number of seeds leaves one out of each), taken as 0 if negative, and
    stepped up to all seeds by Spearman-Brown: 2r / (1 + r) for halves.

    It is an estimate from these subsets and has an interval of its own, which `weights` give.
    Spearman-Brown is exact for Pearson correlations and seeds that are alike and independent; for
    ranks it is near.

    Args:
        losses: of each query under the model of each seed and subset.
        weights: as in `lds`.

    Returns:
        0 .. 1; a first axis only with weights. Nan where a half's losses are all the same.

    Raises:
        InputError: there are fewer than 2 seeds.
    """
    seeds = len(losses)
    if seeds < 2:
        raise InputError(f"losses of {seeds} seeds; give 2 at least to tell seeds from subsets")
    size = seeds // 2
    found = []
    for first in combinations(range(seeds), size):
        rest = [k for k in range(seeds) if k not in first]
        for second in combinations(rest, size):
            if first < second:  # each pair once
                one, other = (losses[list(half)].mean(axis=0) for half in (first, second))
                found.append(lds(one.T[None], -other, weights)[..., 0, :])
    r = np.maximum(np.mean(found, axis=0), 0.0)
    return (seeds / size) * r / (1 + (seeds / size - 1) * r)


def ceiling(
    losses: Float[np.ndarray, "seeds subsets queries"],
    weights: Real[np.ndarray, "draws subsets"] | None = None,
) -> Float64[np.ndarray, " queries"] | Float64[np.ndarray, "draws queries"]:
    """The LDS to be expected of the true scores against the mean loss over the seeds.

    The root of `reliability`, and like it an estimate with an interval of its own: an LDS may
    come out above it.
    """
    return np.sqrt(reliability(losses, weights))


def halves(subsets: int) -> tuple[Bool[np.ndarray, " subsets"], Bool[np.ndarray, " subsets"]]:
    """Which subsets are for choosing a method, and which for reporting: even and odd positions.

    Raises:
        InputError: there are fewer than 2 subsets.
    """
    if subsets < 2:
        raise InputError(f"{subsets} subsets cannot be halved; give 2 at least")
    choosing = np.arange(subsets) % 2 == 0
    return choosing, ~choosing


def _centred_ranks(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Ranks (..., S, B) of x (..., S) less their mean, under each of the weights (S, B).

    The mean rank of i and its ties, were row j there w_j times, is half of sum_j w_j sign(x_i -
    x_j), but for a constant: the weighted mean of this is 0, and for integers it is exact.
    """
    signs = (x[..., :, None] > x[..., None, :]).astype(np.float64)
    signs -= x[..., :, None] < x[..., None, :]
    signs[np.isnan(x)] = np.nan
    return (signs.reshape(-1, len(w)) @ w / 2).reshape(*x.shape, w.shape[1])


def _directions(covariates: np.ndarray, w: np.ndarray) -> np.ndarray:
    """An orthonormal basis (C, Q, S, B) of the covariates' ranks under the weights, times them.

    Its product with ranks, summed over S, is their weighted part along each direction. Ranks are
    centred, which is the intercept. Directions that the covariates do not span are 0.
    """
    root = np.sqrt(w)
    ranks = np.einsum("cqsb,sb->qbsc", _centred_ranks(covariates, w), root)
    basis, size, _ = np.linalg.svd(ranks, full_matrices=False)
    spanned = size > _NOTHING_LEFT * size.max(axis=-1, keepdims=True, initial=0.0)
    basis = np.where(spanned[..., None, :], basis, 0.0)
    return np.einsum("qbsc,sb->cqsb", basis, root)


def _left(whole: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The variance that parts along directions (C, ...) leave; nan where that is nothing."""
    left = whole - (known**2).sum(axis=0)
    return np.where(left > _NOTHING_LEFT * whole, left, np.nan)
