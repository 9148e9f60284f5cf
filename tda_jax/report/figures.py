"""Figures of one query's scores, from the columns of its table. Legible in grey."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tda_jax.artifact import whole_file
from tda_jax.errors import InputError
from tda_jax.places import Place

_TOP = 30
_BINS = 40
_FEWEST_TICKS = 4
_LINEAR = 10  # units that a linear axis shows well
_NAME = 42  # letters of a name that a figure shows
_SCORE = "score: rise of the track's loss when the query is forgotten"
_ERRORS = {
    "direction_error": ("0.72", 6.0, "± 1 standard error, from the query's draws"),
    "standard_error": ("0.0", 1.2, "± 1 standard error, from the sweep's draws"),
}
_KINDS = {True: ("0.0", "member"), False: ("1.0", "decoy, not trained on")}


def distribution(path: Place, columns: Mapping[str, Any], query: str) -> None:
    """Draws how the scores of members and of decoys are spread.

    Args:
        path: the PNG, written in place of what was there.
        columns: `id`, `score` and `member` of a table.
        query: its id; the track of that id is marked.

    Raises:
        InputError: no track has a score; the disk refuses.
    """
    score, member = _scored(path, columns)
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    _histograms(axes, score[member], score[~member], _unit(score))
    own = [s for name, s in zip(columns["id"], columns["score"], strict=True) if name == query]
    if own and np.isfinite(own[0]):
        axes.axvline(own[0], color="0.0", linestyle=":", label="the query itself, as a track")
    axes.set_title(f"Scores of all tracks for query {_short(query)}")
    axes.set_ylabel("share of tracks (logarithmic)")
    _score_axis(axes, _unit(score), score.min(), score.max())
    figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize=8)
    _save(figure, path)


def top(path: Place, columns: Mapping[str, Any], query: str) -> None:
    """Draws the tracks with the highest scores, with their errors.

    Args:
        path: the PNG, written in place of what was there.
        columns: `id`, `score`, `standard_error`, `direction_error` and `member` of a table, in
            its order.
        query: its id; the track of that id is marked.

    Raises:
        InputError: no track has a score; the disk refuses.
    """
    score, member = _scored(path, columns)
    unit, shown = _unit(score), slice(min(len(score), _TOP))
    low, high = score[shown][-1], score[0]
    score, member = score[shown], member[shown]
    places = np.arange(len(score))
    figure = Figure(figsize=(7.2, 1.8 + 0.2 * len(score)), layout="constrained")
    axes = figure.subplots()
    for name, (colour, width, label) in _ERRORS.items():
        error = np.asarray(columns[name], np.float64)[shown]
        if np.isfinite(error).any():
            ends = score - error, score + error
            low, high = np.nanmin([low, *ends[0]]), np.nanmax([high, *ends[1]])
            axes.hlines(places, *ends, color=colour, linewidth=width, label=label, zorder=2)
    for kind, (face, label) in _KINDS.items():
        chosen, style = member == kind, {"color": "0.0", "markerfacecolor": face, "label": label}
        if chosen.any():
            axes.plot(score[chosen], places[chosen], "o", markersize=4.5, **style)
    ids = list(columns["id"])[shown]
    names = [f"the query itself: {_short(x)}" if x == query else _short(x) for x in ids]
    axes.set_yticks(places, names, fontsize=7)
    axes.set_ylim(len(score) - 0.4, -0.6)
    axes.set_title(f"The {len(score)} highest scores for query {_short(query)}")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    _score_axis(axes, unit, low, high)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, fontsize=8)
    _save(figure, path)


def _histograms(axes: Axes, members: np.ndarray, decoys: np.ndarray, unit: float) -> None:
    """Both on one set of bins, equally wide on the axis, each as shares of its own number."""
    both = np.concatenate([members, decoys])
    edges = np.histogram_bin_edges(both, _BINS)
    if _wide(both.min(), both.max(), unit):
        edges = unit * np.sinh(np.histogram_bin_edges(np.arcsinh(both / unit), _BINS))
    edges[0], edges[-1] = min(edges[0], both.min()), max(edges[-1], both.max())  # despite rounding
    kinds = (
        (members, {"histtype": "stepfilled", "color": "0.7"}, "members"),
        (decoys, {"histtype": "step", "color": "0.0", "linewidth": 1.4}, "decoys, not trained on"),
    )
    for values, style, name in kinds:
        if len(values):
            weights = np.full(len(values), 1 / len(values))
            label = f"{name} ({len(values):,})"
            axes.hist(values, edges, weights=weights, log=True, label=label, **style)


def _unit(score: np.ndarray) -> float:
    """Up to where a score axis is about linear: most scores are that small, few are far larger."""
    size = np.median(np.abs(score))
    return float(size) if size > 0 else 1.0


def _wide(low: float, high: float, unit: float) -> bool:
    """Whether scores reach so far that an axis must be logarithmic beyond the unit."""
    return bool(high - low > _LINEAR * unit)


def _score_axis(axes: Axes, unit: float, low: float, high: float) -> None:
    """Scores from `low` to `high`; a wide axis has ticks at zero and at round numbers."""
    axes.set_xlabel(_SCORE)
    if not _wide(low, high, unit):
        margin = 0.03 * ((high - low) or unit)
        axes.set_xlim(low - margin, high + margin)
        return
    axes.set_xscale("asinh", linear_width=unit)
    ends = np.arcsinh(np.array([low, high]) / unit)
    margin = 0.03 * np.ptp(ends)
    left, right = unit * np.sinh([ends[0] - margin, ends[1] + margin])
    axes.set_xlim(left, right)
    ticks = _ticks(unit, left, right)
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(f"{_SCORE}\n(about linear within ± {unit:.1g}, logarithmic beyond)")


def _ticks(unit: float, left: float, right: float) -> list[float]:
    """Zero and powers of ten from the unit on; where those are few, twice and five times them."""
    exponents = range(math.floor(math.log10(unit)), math.ceil(math.log10(right - left)) + 1)
    for multiples in ((1,), (1, 2, 5)):
        sizes = [m * 10.0**k for k in exponents for m in multiples if m * 10.0**k >= 0.9 * unit]
        ticks = [x for x in (*(-x for x in sizes[::-1]), 0.0, *sizes) if left <= x <= right]
        if len(ticks) >= _FEWEST_TICKS:
            break
    return ticks


def _scored(path: Place, columns: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and members of the tracks that have a score."""
    score, member = np.asarray(columns["score"], np.float64), np.asarray(columns["member"], bool)
    known = np.isfinite(score)
    if not known.any():
        raise InputError(f"{path}: no track has a score, so there is nothing to draw; see summary")
    return score[known], member[known]


def _short(name: str) -> str:
    name = name.replace("$", r"\$")  # no mathematics
    return name if len(name) <= _NAME else f"…{name[1 - _NAME :]}"


def _save(figure: Figure, path: Place) -> None:
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=150)
