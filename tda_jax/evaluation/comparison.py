"""Methods side by side: how well the scores of each tell the losses of retrained models."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from tda_jax.errors import InputError
from tda_jax.evaluation import bootstrap, datamodelling
from tda_jax.evaluation.ranking import Interval


class Row(NamedTuple):
    """One method. Means over queries, with 95 % intervals over resampled subsets and queries.

    Attributes:
        method: its name.
        lds: linear datamodelling score, against the mean loss over seeds.
        partial: the same beyond the covariates.
        specific: LDS less that of the same scores without the query, the mean of those of the
            other queries, each standardised; the interval is of the paired difference. A method
            that says the same of every query has none.
        behind: LDS of the reference less that of this method; the interval is of the paired
            difference, and 0 for the reference itself.
        below: LDS of the highest less that of this method, likewise.
        share: the mean LDS over the mean ceiling; nan where the ceiling is 0.
    """

    method: str
    lds: Interval
    partial: Interval
    specific: Interval
    behind: Interval
    below: Interval
    share: float


def compare(
    names: Sequence[str],
    scores: Float[np.ndarray, "methods queries tracks"],
    kept: Bool[np.ndarray, "subsets tracks"],
    losses: Float[np.ndarray, "seeds subsets queries"],
    covariates: Float[np.ndarray, "covariates queries tracks"],
    reference: str,
    alike: Int[np.ndarray, " queries"],
    draws: int = 1000,
    seed: int = 0,
    highest: str | None = None,
) -> tuple[list[Row], Interval]:
    """Holds methods against retrainings and against each other.

    A query of which a method tells nothing, by no score or the same for every subset, counts as
    chance would: 0. The intervals are over the subsets and the queries, not over the seeds: they
    are those of the mean loss over these seeds.

    Args:
        names: of the methods, no two alike.
        scores: higher is more support; nan counts as the query's mean score.
        kept: the tracks that each subset leaves in the training.
        losses: of each query under the model of each seed and subset.
        covariates: what else is known of each track for each query, such as its likeness, as
            scores are; summed over the tracks that are kept.
        reference: the method that the others are held against.
        alike: numbers of groups; a query's others, for `Row.specific`, are those of its group.
        draws: of the bootstrap.
        seed: of the bootstrap.
        highest: the method that was highest on other subsets, for `Row.below`; the reference
            where none is named. To take the highest of these would favour it by luck.

    Returns:
        A row for each method, in their order, and the interval of the ceiling (mean over queries).

    Raises:
        InputError: names are not one for each method, the reference or the highest is not among
            them, or a score or covariate cannot be summed (see `datamodelling`).
    """
    _check(names, scores)
    first, top_row = (_row_of(names, name) for name in (reference, highest or reference))
    subsets = bootstrap.multiplicities(len(kept), draws, seed, "subsets")
    queries = bootstrap.multiplicities(scores.shape[1], draws, seed, "queries")
    loss = losses.mean(axis=0)
    told, blind = (datamodelling.predicted(x, kept) for x in (scores, without_query(scores, alike)))
    others = datamodelling.predicted(covariates, kept)

    def over(values: np.ndarray, drawn: np.ndarray) -> Interval:
        return bootstrap.interval(bootstrap.mean(values), bootstrap.both(drawn, queries))

    top = over(datamodelling.ceiling(losses), datamodelling.ceiling(losses, subsets))
    lds, drawn = (_lds(told, loss, w) for w in (None, subsets))
    unseen, unseen_drawn = (_lds(blind, loss, w) for w in (None, subsets))
    partial, left = (datamodelling.partial_lds(told, loss, others, w) for w in (None, subsets))
    rows = []
    for m, name in enumerate(names):
        own = over(lds[m], drawn[:, m])
        behind = over(lds[first] - lds[m], drawn[:, first] - drawn[:, m])
        below = over(lds[top_row] - lds[m], drawn[:, top_row] - drawn[:, m])
        specific = over(lds[m] - unseen[m], drawn[:, m] - unseen_drawn[:, m])
        share = own.mean / top.mean if top.mean > 0 else float("nan")
        rows.append(Row(name, own, over(partial[m], left[:, m]), specific, behind, below, share))
    return rows, top


def without_query(
    scores: Float[np.ndarray, "methods queries tracks"], alike: Int[np.ndarray, " queries"]
) -> Float64[np.ndarray, "methods queries tracks"]:
    """For each query the mean of the other queries' scores, each standardised over its tracks.

    Args:
        scores: nan counts as the query's mean score.
        alike: numbers of groups; only queries of the same group are its others.

    Returns:
        nan for a query that is alone in its group.
    """
    known = np.isfinite(scores)
    count = np.maximum(known.sum(axis=2, keepdims=True), 1)
    middle = np.where(known, scores, 0.0).sum(axis=2, keepdims=True) / count
    centred = np.where(known, scores - middle, 0.0)
    spread = np.sqrt((centred**2).sum(axis=2, keepdims=True) / count)
    z = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    same = (alike[:, None] == alike[None]) & ~np.eye(len(alike), dtype=bool)
    others = same.sum(axis=1)[None, :, None]
    total = np.einsum("qp,mpn->mqn", same.astype(np.float64), z)
    return np.divide(total, others, out=np.full_like(total, np.nan), where=others > 0)


def _lds(told: np.ndarray, loss: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """LDS; 0 where nothing is told, as long as the losses differ."""
    found = datamodelling.lds(told, loss, weights)
    return np.where(np.isnan(found) & (np.ptp(loss, axis=0) > 0), 0.0, found)


def _row_of(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise InputError(f"the reference {name!r} is no method; give one of {list(names)}")
    return list(names).index(name)


def _check(names: Sequence[str], scores: np.ndarray) -> None:
    if len(names) != len(scores) or len(set(names)) != len(names):
        raise InputError(
            f"{len(names)} names, {len(set(names))} of them different, for the scores of "
            f"{len(scores)} methods; give each method a name of its own"
        )
