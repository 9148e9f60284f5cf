"""What the charts of a report show, as places on them: the templates draw, and compute nothing.

Places on a chart are in per cent of its width, so that lines and letters keep their sizes on every
screen; heights are shares of 1.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from tda_jax.report.contents import Query, Track
from tda_jax.report.scale import Scale, scale_of
from tda_jax.report.words import short

_BINS = 48
_CURVE = 120  # points of a curve at most
_LABEL = 12.0  # percent of the axis that a label needs, on a phone
_SHARES = (0.01, 0.05, 0.1, 0.25, 0.5)
_ROOM = 0.04  # beside the outermost error bar


class Tick(NamedTuple):
    """A mark on an axis: where it stands, and what it says."""

    at: float
    says: str


class Bar(NamedTuple):
    """A bar of a histogram: its left end and width in per cent, and its height, 0 .. 1."""

    left: float
    width: float
    height: float


class Spread(NamedTuple):
    """How the scores of one kind of track are spread: the numbers, which stand for the chart."""

    tracks: int
    lowest: float
    median: float
    high: float  # of which 5 % are above
    highest: float


class Distribution(NamedTuple):
    """The scores of all tracks, members above the axis and decoys below it.

    Attributes:
        members: bars; heights are logarithms of shares of the members, 1 the highest bar of all.
        decoys: likewise of the decoys.
        levels: heights of round shares.
        ticks: of the axis of scores.
        own: where the query itself stands, or None.
        bent: up to where the axis is linear, or None if it is all along.
        spread: of members and of decoys; None of a kind that has no score.
    """

    members: tuple[Bar, ...]
    decoys: tuple[Bar, ...]
    levels: tuple[Tick, ...]
    ticks: tuple[Tick, ...]
    own: float | None
    bent: float | None
    spread: dict[str, Spread | None]


class Concentration(NamedTuple):
    """How few tracks hold how much of the positive score.

    Attributes:
        points: (share of the members, share of their positive score), both 0 .. 1, from the best.
        shares: of positive score that the best 1, 5, 10, 25 and 50 % of the members hold.
        tracks: how many members there are.
    """

    points: tuple[tuple[float, float], ...]
    shares: tuple[tuple[float, float], ...]
    tracks: int


class Whisker(NamedTuple):
    """A score with its error on the axis of a list.

    Attributes:
        at: of the score, in per cent.
        low: of one standard error less, or None.
        high: of one more, or None.
        beyond: the score lies beyond the axis, which is of the other tracks.
    """

    at: float
    low: float | None
    high: float | None
    beyond: bool


class Axis(NamedTuple):
    """The axis of a list of tracks.

    Attributes:
        scale: on which all lie but the query itself, which may lie beyond.
        zero: where zero stands, in per cent.
        decoy: where the highest decoy of all stands, or None.
    """

    scale: Scale
    zero: float
    decoy: float | None


def distribution(query: Query) -> Distribution | None:
    """Bins of a query's scores; None where no track has one."""
    score, members = query.column("score"), query.members
    counted = query.others & ~np.isnan(score)
    if not counted.any():
        return None
    axis = scale_of(score[~np.isnan(score)])
    kinds = {"members": score[counted & members], "decoys": score[counted & ~members]}
    heights = _heights(kinds.values(), axis)
    bars = {name: _bars(values, axis, heights) for name, values in kinds.items()}
    own = None if query.own is None else score[query.own]
    return Distribution(
        **bars,
        levels=tuple(Tick(heights.of(x), f"{100 * x:g} %") for x in heights.levels()),
        ticks=_legible([Tick(_percent(axis, x), short(x)) for x in axis.ticks()], axis),
        own=None if own is None or math.isnan(own) else _percent(axis, own),
        bent=axis.unit if axis.wide else None,
        spread={name: _spread(values) for name, values in kinds.items()},
    )


def concentration(query: Query) -> Concentration | None:
    """The curve of a query, itself left out; None where no member has a positive score."""
    score = query.column("score")
    chosen = np.sort(score[query.others & query.members & ~np.isnan(score)])[::-1]
    positive, n = np.maximum(chosen, 0), len(chosen)
    if not positive.sum() > 0:
        return None
    held = np.concatenate([[0.0], np.cumsum(positive)]) / positive.sum()
    steps = np.unique(np.round(n * np.linspace(0, 1, _CURVE) ** 2).astype(int))
    return Concentration(
        tuple((round(k / n, 5), round(float(held[k]), 5)) for k in steps),
        tuple((share, float(held[math.ceil(share * n)])) for share in _SHARES),
        n,
    )


def axis_of(tracks: Sequence[Track], query: Query) -> Axis:
    """The axis of some tracks of a query, one at least."""
    fitted = [t for t in tracks if not t.own] or list(tracks)
    ends = np.array([[t.score - _error(t), t.score + _error(t)] for t in fitted])
    score = query.column("score")
    decoys = score[query.others & ~query.members & ~np.isnan(score)]
    highest = float(decoys.max()) if len(decoys) else None
    low, high = min(0.0, ends.min()), max(0.0, ends.max(), highest or 0.0)
    room = _ROOM * (high - low or 1.0)
    scale = Scale(low - room, high + room, 1.0, wide=False)
    return Axis(scale, _percent(scale, 0.0), None if highest is None else _percent(scale, highest))


def whisker(track: Track, axis: Axis) -> Whisker:
    """The score and the error of a track on an axis."""
    at = _percent(axis.scale, track.score)
    ends: list[float | None] = [None, None]
    if math.isfinite(track.error):
        ends = [_percent(axis.scale, track.score + sign * track.error) for sign in (-1, 1)]
    return Whisker(at, *ends, beyond=not 0 <= at <= 100)


class _Heights(NamedTuple):
    """Heights of bars, 0 .. 1: logarithms of shares between two shares."""

    least: float
    most: float

    def of(self, share: float) -> float:
        return round(math.log(share / self.least) / math.log(self.most / self.least), 4)

    def levels(self) -> list[float]:
        """Powers of ten of a share, in between."""
        ends = (math.log10(x) for x in self)
        low, high = (math.floor(x + 1e-9) for x in ends)
        return [10.0**k for k in range(high, low, -1)]


def _heights(kinds: Iterable[np.ndarray], axis: Scale) -> _Heights:
    """From half a track of the larger kind to the highest bar."""
    edges = axis.edges(_BINS)
    some = [values for values in kinds if len(values)]
    most = max(float(np.histogram(values, edges)[0].max()) / len(values) for values in some)
    return _Heights(1 / (2 * max(map(len, some))), most)


def _bars(values: Float64[np.ndarray, " n"], axis: Scale, heights: _Heights) -> tuple[Bar, ...]:
    """Of the bins that hold a track."""
    if not len(values):
        return ()
    edges = axis.edges(_BINS)
    shares = np.histogram(values, edges)[0] / len(values)
    places = 100 * axis.place(edges)
    return tuple(
        Bar(round(left, 2), round(right - left, 2), heights.of(share))
        for left, right, share in zip(places[:-1], places[1:], shares, strict=True)
        if share
    )


def _spread(values: Float64[np.ndarray, " n"]) -> Spread | None:
    if not len(values):
        return None
    marks = np.quantile(values, [0.0, 0.5, 0.95, 1.0])
    return Spread(len(values), *(float(x) for x in marks))


def _legible(ticks: list[Tick], axis: Scale) -> tuple[Tick, ...]:
    """The ticks whose labels do not touch, from zero outwards."""
    zero = _percent(axis, 0.0)
    kept: list[Tick] = []
    for tick in sorted(ticks, key=lambda tick: abs(tick.at - zero)):
        if all(abs(tick.at - other.at) >= _LABEL for other in kept):
            kept.append(tick)
    return tuple(sorted(kept, key=lambda tick: tick.at))


def _percent(axis: Scale, score: float) -> float:
    return round(100 * float(axis.place(np.array([score]))[0]), 2)


def _error(track: Track) -> float:
    return track.error if math.isfinite(track.error) else 0.0
