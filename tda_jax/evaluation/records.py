"""Figures of single queries, gathered to means over queries and intervals over seeds."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from tda_jax.errors import InputError
from tda_jax.evaluation.ranking import Interval, mean_interval


class Key(NamedTuple):
    """What a figure is of; "" where a part does not apply.

    Attributes:
        study: which part of the controls.
        level: the loss level, by updates of the training.
        group: of parameters.
        step: how far: "rise 0.1", "rate 0.001"; or a number of draws.
        method: what scored the tracks.
        metric: what was read off the scores.
    """

    study: str
    metric: str
    method: str = ""
    group: str = ""
    step: str = ""
    level: str = ""


class Record(NamedTuple):
    """One figure of one query of one seed."""

    key: Key
    seed: int
    query: str
    value: float


class Table:
    """Records by key: the mean over a seed's queries, then over seeds.

    Seeds are independent: each has its own corpus, training and draws. Queries of a seed are not.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        """Gathers the records; values that are nan take no part."""
        found: dict[Key, dict[int, list[float]]] = {}
        for record in records:
            found.setdefault(record.key, {}).setdefault(record.seed, []).append(record.value)
        self._seeds = sorted({seed for by_seed in found.values() for seed in by_seed})
        self._found = found

    @property
    def keys(self) -> list[Key]:
        """All keys, in the order of their first record."""
        return list(self._found)

    def select(self, **parts: str) -> list[Key]:
        """The keys with given parts, in order."""
        return [k for k in self._found if all(getattr(k, n) == v for n, v in parts.items())]

    def seeds(self, key: Key) -> Float64[np.ndarray, " seeds"]:
        """The mean over queries of each seed; nan for a seed without a value.

        Raises:
            InputError: there is no such figure.
        """
        if key not in self._found:
            raise InputError(f"no figure {key}; there are {len(self._found)} others")
        by_seed = self._found[key]
        values = [np.array(by_seed.get(seed, []), float) for seed in self._seeds]
        known = [v[~np.isnan(v)] for v in values]
        return np.array([v.mean() if len(v) else np.nan for v in known])

    def interval(self, key: Key) -> Interval | None:
        """The mean over seeds with its t-interval; None where no seed has a value."""
        return interval_of(self.seeds(key))

    def difference(self, first: Key, second: Key) -> Interval | None:
        """The same of first - second, paired by seed."""
        return interval_of(self.seeds(first) - self.seeds(second))


def interval_of(values: Float64[np.ndarray, " seeds"]) -> Interval | None:
    """`ranking.mean_interval`, None where no value is left."""
    return mean_interval(values) if np.isfinite(values).any() else None
