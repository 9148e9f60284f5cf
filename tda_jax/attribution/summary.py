"""What is worth saying of a query's table in a few numbers."""

import math
from typing import Any

import numpy as np

from tda_jax.attribution.directions import Calibration
from tda_jax.attribution.table import Table

_TOP_SHARE = 0.01
_LEVELS = (0.05, 0.1)


def of_query(
    query: str, table: Table, calibration: Calibration, rate: float, steps: int
) -> dict[str, Any]:
    """The numbers of one query, as JSON keeps them; None where there is none.

    Args:
        query: its id.
        table: from `table.tables`.
        calibration: the query's own response.
        rate: its learning rate.
        steps: how many were taken with it.

    Returns:
        own: the id of the track, member or decoy, that the query is or is a part of, or None.
        self_rank: the query's own rank, if it is a member of the corpus: of its id and latent. Of
            a query that is a unit, the rank of its track.
        rate, predicted_rise: the learning rate, and the share by which the query's own loss is
            predicted to rise at it; None after several steps, which no quadratic predicts.
        loss, a, b, b_unbiased: see `directions.Calibration`.
        q_below: by level, how many members are let in at that false-discovery rate.
        concentration: the share of the members' positive scores that the best 1 % of them hold,
            the query itself left out.
        scored, unscored: how many tracks have a score; the others with the reason.
        left_out: units that are left out of their track's mean, with the reason.
    """
    rank = dict(zip(table.columns["id"], table.columns["rank"], strict=True))
    rise = (rate * calibration.a + rate**2 * calibration.b) / calibration.loss
    numbers = {
        "id": query,
        "own": table.own,
        "self_rank": rank.get(table.own),
        "rate": rate,
        "predicted_rise": rise if steps == 1 else None,
        **calibration._asdict(),
        "q_below": {str(u): int(np.sum(table.columns["q_value"] <= u)) for u in _LEVELS},
        "concentration": concentration(table),
        "scored": len(table.order) - len(table.unscored),
        "unscored": [{"id": name, "reason": reason} for name, reason in table.unscored],
        "left_out": [{"id": name, "reason": reason} for name, reason in table.left_out],
    }
    return {name: _number(value) for name, value in numbers.items()}


def concentration(table: Table) -> float:
    """The share of the members' positive scores in the best 1 % of them, one track at least.

    Returns:
        0 .. 1; nan where no member has a positive score.
    """
    counted = [
        member and name != table.own
        for name, member in zip(table.columns["id"], table.columns["member"], strict=True)
    ]
    score = np.asarray(table.columns["score"])[np.asarray(counted, bool)]
    score = score[~np.isnan(score)]
    positive = np.maximum(score, 0).sum()
    best = np.sort(score)[::-1][: math.ceil(_TOP_SHARE * len(score))]
    return float(np.maximum(best, 0).sum() / positive) if positive > 0 else float("nan")


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
