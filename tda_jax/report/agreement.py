"""How far scores agree with models that were trained anew: the comparison, and its bars."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tda_jax.errors import InputError
from tda_jax.report.contents import read_object
from tda_jax.report.evidence import Measured
from tda_jax.report.scale import Scale, round_ticks
from tda_jax.report.words import short

_TRUTH = "the truth.json that experiments.truth wrote into the folder of a demo"
_MARGIN = 0.03  # of the axis of agreement, beyond its outermost interval
_LABEL = 25.0  # per cent of that axis that a label needs: on a phone it is a third of the screen


class Agreement(NamedTuple):
    """How far one method's scores agree with retraining.

    Attributes:
        method: its name.
        own: whether its scores are those of this report.
        lds: its linear datamodelling score, -1 .. 1; None where there is none.
    """

    method: str
    own: bool
    lds: Measured | None


class Truth(NamedTuple):
    """Scores held against models that were trained anew without some of the tracks.

    Attributes:
        note: on what was trained and scored.
        ceiling: the highest LDS that true scores could reach, as retraining itself is noisy.
        rows: of methods, in the order of the file.
        verdict: sentences on what it says.
    """

    note: str
    ceiling: Measured
    rows: tuple[Agreement, ...]
    verdict: tuple[str, ...]


class Strip(NamedTuple):
    """An LDS on the axis that all share, in per cent of its width.

    Attributes:
        left: the left end of the bar from zero to the mean.
        width: of that bar.
        low: where the interval begins; None where the spread is unknown.
        high: where it ends, likewise.
    """

    left: float
    width: float
    low: float | None
    high: float | None


class Strips(NamedTuple):
    """Bars of the LDS of methods, below each other on one axis; places are in per cent.

    Attributes:
        zero: where 0 stands.
        ceiling: where the noise ceiling stands.
        spread: of the noise ceiling.
        rows: of methods in their order; None of one without an LDS.
        ticks: places on the axis with what they say.
    """

    zero: float
    ceiling: float
    spread: Strip
    rows: tuple[Strip | None, ...]
    ticks: tuple[tuple[float, str], ...]


def read_truth(path: Path) -> Truth:
    """Reads how far scores agree with retraining.

    Raises:
        InputError: the file cannot be read, or is no such comparison.
    """
    found = read_object(path, ("note", "ceiling", "rows", "verdict"), _TRUTH)
    try:
        ceiling = _score(found["ceiling"], "ceiling")
        if ceiling is None:
            raise ValueError("ceiling has no mean")
        rows = tuple(_agreement(row, i) for i, row in enumerate(_list(found["rows"], "rows")))
        if not rows:
            raise ValueError("rows is [], with no method")
        sentences = enumerate(_list(found["verdict"], "verdict"))
        verdict = tuple(_text(text, f"verdict[{i}]") for i, text in sentences)
        return Truth(_text(found["note"], "note"), ceiling, rows, verdict)
    except (ValueError, OverflowError) as error:  # a number of 400 digits is none of a computer
        raise InputError(f"{path}: {error}; give {_TRUTH}") from error


def strips(truth: Truth) -> Strips:
    """Bars on an axis that holds every mean and interval, zero among them."""
    known = [truth.ceiling, *(row.lds for row in truth.rows if row.lds is not None)]
    places = [x for one in known for x in (one.mean, one.low, one.high) if x is not None]
    low, high = min(0.0, *places), max(0.0, *places)
    margin = _MARGIN * (high - low or 1.0)
    # Where nothing is below zero, bars begin at the very left.
    axis = Scale(low - margin if low < 0 else 0.0, high + margin, 1.0, wide=False)
    kept: list[tuple[float, str]] = []
    for tick in sorted(round_ticks(axis.low, axis.high), key=abs):
        at = _percent(axis, tick)
        if all(abs(at - other) >= _LABEL for other, _ in kept):
            kept.append((at, short(tick)))
    return Strips(
        _percent(axis, 0.0),
        _percent(axis, truth.ceiling.mean),
        _strip(truth.ceiling, axis),
        tuple(None if row.lds is None else _strip(row.lds, axis) for row in truth.rows),
        tuple(sorted(kept)),
    )


def _strip(lds: Measured, axis: Scale) -> Strip:
    left, right = sorted((_percent(axis, 0.0), _percent(axis, lds.mean)))
    ends: list[float | None] = [None, None]
    if lds.low is not None and lds.high is not None:
        ends = [_percent(axis, lds.low), _percent(axis, lds.high)]
    return Strip(left, round(right - left, 2), *ends)


def _percent(axis: Scale, x: float) -> float:
    return round(100 * float(axis.place(np.array([x]))[0]), 2)


def _agreement(row: Any, at: int) -> Agreement:
    name = f"rows[{at}]"
    own = _of(row, name, "own")
    if not isinstance(own, bool):
        raise ValueError(f"{name}.own is {own!r}, and not true or false")
    method = _text(_of(row, name, "method"), f"{name}.method")
    return Agreement(method, own, _score(_of(row, name, "lds"), f"{name}.lds"))


def _score(value: Any, name: str) -> Measured | None:
    """A mean with its interval, checked; None where there is no mean."""
    mean, low, high = (_number(_of(value, name, x), f"{name}.{x}") for x in ("mean", "low", "high"))
    count = _of(value, name, "count")
    if isinstance(count, bool) or not isinstance(count, int):
        raise ValueError(f"{name}.count is {count!r}, and no whole number")
    if low is not None and high is not None and low > high:
        raise ValueError(f"{name} has low = {low:g} above high = {high:g}")
    return None if mean is None else Measured(mean, low, high, count)


def _of(value: Any, name: str, key: str) -> Any:
    """A value of an object that must be there."""
    if not isinstance(value, dict) or key not in value:
        raise ValueError(f"{name} has no {key!r}")
    return value[key]


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, and no finite number")
    return float(value)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}, and no text")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is {value!r}, and no list")
    return value
