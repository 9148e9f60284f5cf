"""Methods side by side: how well the scores of each tell the losses of retrained models."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tda_jax.errors import InputError
from tda_jax.evaluation import bootstrap, datamodelling
from tda_jax.evaluation.ranking import Interval


class Row(NamedTuple):
    """One method. Means over queries, with 95 % intervals over resampled subsets and queries.

    Attributes:
        method: its name.
        lds: linear datamodelling score, against the mean loss over seeds.
        partial: the same beyond the covariates.
        behind: LDS of the reference less that of this method, over the queries for which both
            have one; the interval is of the paired difference, and 0 for the reference itself.
        share: the mean LDS over the mean ceiling; nan where the ceiling is 0.
    """

    method: str
    lds: Interval
    partial: Interval
    behind: Interval
    share: float


def compare(
    names: Sequence[str],
    scores: Float[np.ndarray, "methods queries tracks"],
    kept: Bool[np.ndarray, "subsets tracks"],
    losses: Float[np.ndarray, "seeds subsets queries"],
    covariates: Float[np.ndarray, "covariates queries tracks"],
    reference: str,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[list[Row], Interval]:
    """Holds methods against retrainings and against each other.

    The intervals are over the subsets and the queries, not over the seeds: they are those of the
    mean loss over these seeds.

    Args:
        names: of the methods, no two alike.
        scores: higher is more support; nan counts as the query's mean score.
        kept: the tracks that each subset leaves in the training.
        losses: of each query under the model of each seed and subset.
        covariates: what else is known of each track for each query, such as its likeness, as
            scores are; summed over the tracks that are kept.
        reference: the method that the others are held against.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        A row for each method, in their order, and the interval of the ceiling (mean over queries).

    Raises:
        InputError: names are not one for each method, the reference is not among them, or a score
            or covariate cannot be summed (see `datamodelling`).
    """
    _check(names, scores)
    if reference not in names:
        raise InputError(f"the reference {reference!r} is no method; give one of {list(names)}")
    first = list(names).index(reference)
    subsets = bootstrap.multiplicities(len(kept), draws, seed, "subsets")
    queries = bootstrap.multiplicities(scores.shape[1], draws, seed, "queries")
    told, loss = datamodelling.predicted(scores, kept), losses.mean(axis=0)
    others = datamodelling.predicted(covariates, kept)

    def over(values: np.ndarray, drawn: np.ndarray) -> Interval:
        return bootstrap.interval(bootstrap.mean(values), bootstrap.both(drawn, queries))

    top = over(datamodelling.ceiling(losses), datamodelling.ceiling(losses, subsets))
    lds, drawn = (datamodelling.lds(told, loss, w) for w in (None, subsets))
    partial, left = (datamodelling.partial_lds(told, loss, others, w) for w in (None, subsets))
    rows = []
    for m, name in enumerate(names):
        own = over(lds[m], drawn[:, m])
        behind = over(lds[first] - lds[m], drawn[:, first] - drawn[:, m])
        share = own.mean / top.mean if top.mean > 0 else float("nan")
        rows.append(Row(name, own, over(partial[m], left[:, m]), behind, share))
    return rows, top


def best(
    names: Sequence[str],
    scores: Float[np.ndarray, "methods queries tracks"],
    kept: Bool[np.ndarray, "subsets tracks"],
    losses: Float[np.ndarray, "seeds subsets queries"],
) -> str:
    """The method with the highest LDS, mean over queries; the first of those that tie.

    To be chosen on other subsets than those that are reported: see `datamodelling.halves`.

    Args:
        names: of the methods, no two alike.
        scores: as in `compare`.
        kept: as in `compare`.
        losses: as in `compare`.

    Raises:
        InputError: names are not one for each method, or no method has an LDS.
    """
    _check(names, scores)
    each = datamodelling.lds(datamodelling.predicted(scores, kept), losses.mean(axis=0))
    means = np.array([bootstrap.mean(row) for row in each])
    if np.isnan(means).all():
        raise InputError(
            f"none of {len(names)} methods has an LDS for any query: predictions or losses are "
            "all alike or nan; give scores and losses that differ"
        )
    return names[int(np.nanargmax(means))]


def _check(names: Sequence[str], scores: np.ndarray) -> None:
    if len(names) != len(scores) or len(set(names)) != len(names):
        raise InputError(
            f"{len(names)} names, {len(set(names))} of them different, for the scores of "
            f"{len(scores)} methods; give each method a name of its own"
        )
