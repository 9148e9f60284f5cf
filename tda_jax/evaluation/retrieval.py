"""What scores find of a query's relatives, caption-mates and training set, beside plain likeness.

Everything is read from the saved tables of a run, and from what is known of which tracks belong
together.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from tda_jax.errors import InputError
from tda_jax.evaluation.ranking import Interval, mean_interval
from tda_jax.evaluation.relations import Relations, metrics, related

METHODS = {
    "unlearning": "score",
    "log-mel similarity": "log_mel_similarity",
    "latent similarity": "latent_similarity",
    "caption similarity": "condition_similarity",
}
"""Ways of scoring, and the columns that hold them."""
CHANCE = "chance"
METRICS = {
    "self_influence_mean_rank": "self_rank",
    "relatives_auc": "relatives",
    "caption_mates_auc": "captions",
    "member_auc": "decoys",
}
"""Figures, and what `relations.metrics` calls them."""
CALIPER = 0.2  # in log-mel or latent similarity, within which two tracks are equally similar

Columns = Mapping[str, Any]
Values = dict[str, dict[str, Float64[np.ndarray, " queries"]]]
"""By method and figure, a value for each query; nan where a query has none."""


class Row(NamedTuple):
    """A method's figures, each a mean with its interval; None where there is none."""

    method: str
    figures: dict[str, Interval | None]


def of_queries(tables: Mapping[str, Columns], works: Mapping[str, str]) -> Values:
    """The figures of each query under each method.

    Args:
        tables: by query id, the saved columns of a table: `id`, `member`, `score`, `caption` and
            similarities. The queries are members of the corpus.
        works: track id -> what it is a version of.

    Returns:
        Of the methods whose columns all tables have.

    Raises:
        InputError: a query is no row of its own table, or no member; a track's work is not known.
    """
    methods = {m: c for m, c in METHODS.items() if all(c in t for t in tables.values())}
    found = {method: {name: [] for name in METRICS} for method in methods}
    for query, columns in tables.items():
        relations = _relations(query, columns, works)
        for method, column in methods.items():
            scores = np.asarray(columns[column], np.float64)
            values = metrics(scores, relations, CALIPER)
            for name, key in METRICS.items():
                found[method][name].append(values[key])
    return {
        method: {name: np.array(values) for name, values in figures.items()}
        for method, figures in found.items()
    }


def chance(tables: Mapping[str, Columns]) -> dict[str, float]:
    """What scores drawn at random give in the mean."""
    members = [int(np.sum(columns["member"])) for columns in tables.values()]
    rank = float(np.mean([(n + 1) / 2 for n in members]))
    return {name: rank if "rank" in name else 0.5 for name in METRICS}


def rows(values: Values, by_chance: Mapping[str, float]) -> list[Row]:
    """The table of methods: means with t-intervals over what the values are of, and chance."""
    found = []
    for method, figures in values.items():
        known = {name: x[~np.isnan(x)] for name, x in figures.items()}
        intervals = {name: mean_interval(x) if len(x) else None for name, x in known.items()}
        found.append(Row(method, intervals))
    exact = {name: Interval(x, x, x, 0) for name, x in by_chance.items()}
    return [*found, Row(CHANCE, exact)]


def as_json(found: list[Row]) -> list[dict[str, Any]]:
    """The table as JSON keeps it: numbers that are not finite are null."""
    return [
        {"method": row.method}
        | {name: None if x is None else _plain(x) for name, x in row.figures.items()}
        for row in found
    ]


def _plain(interval: Interval) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in interval._asdict().items()
    }


def _relations(query: str, columns: Columns, works: Mapping[str, str]) -> Relations:
    ids = list(columns["id"])
    if query not in ids or not columns["member"][ids.index(query)]:
        raise InputError(f"the query {query!r} is no member of its own table; give one that is")
    if unknown := [name for name in ids if name not in works]:
        raise InputError(f"the works of {unknown[:5]} are not known; give their provenance")
    likeness = next(
        columns[name] for name in ("log_mel_similarity", "latent_similarity") if name in columns
    )
    said = [_captions(value) for value in columns["caption"]]
    own = said[ids.index(query)]
    return related(
        np.array([name == query for name in ids]),
        np.asarray(columns["member"], bool),
        np.array([works[name] == works[query] for name in ids]),
        np.array([bool(own & some) for some in said]),
        np.asarray(likeness, np.float64),
    )


def _captions(value: Any) -> set[str]:
    """Of a track: one, or a list of them, which a table of text holds as JSON."""
    if isinstance(value, str) and value.startswith('["'):
        value = json.loads(value)
    return {value} if isinstance(value, str) else set(value)
