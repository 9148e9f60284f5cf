"""How far scores can be trusted: what an evaluation and a preflight check of the model found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tda_jax.errors import InputError
from tda_jax.report.contents import read_object


class Measure(NamedTuple):
    """What an evaluation measures: the name of its column, a line that explains it, decimals."""

    name: str
    says: str
    decimals: int


MEASURES = {
    "self_influence_mean_rank": Measure(
        "Own rank", "Where a training track ranks when it is the query itself: 1 is best.", 1
    ),
    "relatives_auc": Measure(
        "Relatives",
        "How often another trained version of the query’s work ranks above another work.",
        2,
    ),
    "caption_mates_auc": Measure(
        "Same caption",
        "How often a track of another work under the same caption ranks above the rest.",
        2,
    ),
    "member_auc": Measure(
        "Trained or not",
        "How often a trained version of the query’s work ranks above a held-out one as like it.",
        2,
    ),
}
"""By the names that an evaluation's file has for them."""


class Measured(NamedTuple):
    """A mean with its interval; `low` and `high` are None where the spread is unknown."""

    mean: float
    low: float | None
    high: float | None
    count: int


class Method(NamedTuple):
    """What one method reaches.

    Attributes:
        name: of the method.
        measures: each of `MEASURES` and what it was; None where nothing was measured.
    """

    name: str
    measures: tuple[tuple[Measure, Measured | None], ...]


class Evaluation(NamedTuple):
    """Methods beside each other.

    Attributes:
        note: on what they were measured.
        methods: in the order of the file.
    """

    note: str
    methods: tuple[Method, ...]


class Check(NamedTuple):
    """One check of the model: its name, whether it passed (None: undecided), what it found."""

    name: str
    passed: bool | None
    says: str


class Preflight(NamedTuple):
    """What the checks of the model say together, and each."""

    verdict: str
    checks: tuple[Check, ...]


def read_evaluation(path: Path) -> Evaluation:
    """Reads an evaluation.

    Raises:
        InputError: the file cannot be read, or is no evaluation.
    """
    found = read_object(path, ("note", "rows"), "the evaluation.json of experiments.demo")
    try:
        methods = tuple(
            Method(
                row["method"],
                tuple((says, _measured(row.get(name))) for name, says in MEASURES.items()),
            )
            for row in found["rows"]
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: a row is no method with its measures ({error!r}); evaluate again"
        ) from error
    return Evaluation(found["note"], methods)


def read_preflight(path: Path) -> Preflight:
    """Reads the checks of a model.

    Raises:
        InputError: the file cannot be read, or holds no checks.
    """
    found = read_object(path, ("verdict", "checks"), "what a preflight wrote")
    try:
        checks = tuple(Check(c["name"], c["passed"], c["says"]) for c in found["checks"])
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{path}: a check lacks name, passed or says ({error!r}); run the preflight again"
        ) from error
    return Preflight(found["verdict"], checks)


def _measured(value: Mapping[str, Any] | None) -> Measured | None:
    if value is None or value["mean"] is None:
        return None
    return Measured(value["mean"], value["low"], value["high"], value["count"])
