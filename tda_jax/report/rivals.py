"""One query's scores beside plain similarity and chance."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from tda_jax.evaluation import ranking
from tda_jax.report.contents import LIKENESSES, Query

UNLEARNING, CHANCE = "unlearning", "chance"
_TOP = 10


class Rival(NamedTuple):
    """What one method says of a query.

    Attributes:
        method: its name.
        own_rank: of the query itself among the members; nan if it is none, or has no value.
        member_auc: how often a member is above a decoy.
        overlap: the share of its best tracks that are among unlearning's best.
        spearman: rank correlation with unlearning.
    """

    method: str
    own_rank: float
    member_auc: float
    overlap: float
    spearman: float


class Rivals(NamedTuple):
    """Methods beside each other: unlearning first, chance last.

    Attributes:
        rows: of the methods that the table has, and of chance, which is stated and not drawn.
        top: how many tracks the best are.
    """

    rows: tuple[Rival, ...]
    top: int


def rivals(query: Query) -> Rivals:
    """Compares the methods of a query's table.

    The query itself counts in its own rank and in nothing else. Areas are of members against
    decoys, overlaps and correlations of all tracks.
    """
    score = query.column("score")
    columns = {UNLEARNING: score}
    columns |= {
        words: query.column(name)
        for name, words in LIKENESSES.items()
        if name in query.table.column_names and not np.isnan(query.column(name)).all()
    }
    scored = query.others & ~np.isnan(score)
    top = min(_TOP, int(scored.sum()))
    rows = [_rival(name, values, score, query, top) for name, values in columns.items()]
    members = int((query.members & ~np.isnan(score)).sum())
    is_member = not math.isnan(rows[0].own_rank)
    chance = Rival(
        CHANCE,
        (members + 1) / 2 if is_member else math.nan,
        math.nan if math.isnan(rows[0].member_auc) else 0.5,
        top / int(scored.sum()) if top else math.nan,
        0.0,
    )
    return Rivals((*rows, chance), top)


def _rival(
    name: str,
    values: Float64[np.ndarray, " n"],
    score: Float64[np.ndarray, " n"],
    query: Query,
    top: int,
) -> Rival:
    members, others = query.members, query.others
    both = others & ~np.isnan(values) & ~np.isnan(score)
    own = math.nan
    if query.own is not None and members[query.own]:
        own = float(ranking.ranks(np.where(members, values, np.nan))[query.own])
    return Rival(
        name,
        own,
        ranking.auc(values[members & others], values[~members & others]),
        ranking.top_overlap(values[others], score[others], top)
        if top and both.sum() >= top
        else math.nan,
        ranking.spearman(values[others], score[others]),
    )
