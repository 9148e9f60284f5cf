"""Figures of a comparison with retraining: PNG and SVG, legible in grey."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tda_jax.artifact import whole_file
from tda_jax.evaluation.truth_analysis import ALL, Analysis

_LINES = (("0.0", "o", "-"), ("0.35", "s", "--"), ("0.0", "^", ":"), ("0.6", "D", "-."))


def draw(folder: Path, analysis: Analysis, taken: Mapping[str, list[Any]] | None) -> list[Path]:
    """Draws every figure.

    Args:
        folder: where the files go, in place of what was there.
        analysis: of the comparison.
        taken: from `truth_tables.removals`; None where nothing was removed.

    Returns:
        The files.

    Raises:
        InputError: the disk refuses.
    """
    figures = {"lds": bars(analysis), "cost": cost(analysis)}
    if taken is not None:
        figures["removal"] = removals(taken)
    paths = []
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            with whole_file(path) as part:
                figure.savefig(part, format=kind, dpi=150)
            paths.append(path)
    return paths


def bars(analysis: Analysis) -> Figure:
    """LDS of every family with its interval and the noise ceiling, a panel for each part."""
    parts = list(analysis.ceilings)
    rows = analysis.rows
    figure = Figure(figsize=(2.6 + 2.2 * len(parts), 1.6 + 0.27 * len(rows)), layout="constrained")
    places = np.arange(len(rows))
    panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axes, part in zip(panels, parts, strict=True):
        top = analysis.ceilings[part]
        axes.axvspan(top.low, top.high, color="0.9", zorder=0)
        axes.axvline(top.mean, color="0.3", linestyle="--", linewidth=1)
        axes.axvline(0, color="0.0", linewidth=0.8)
        for place, row in zip(places, rows, strict=True):
            if part not in row.parts:
                continue
            found = row.parts[part].lds
            default = row.variant == analysis.default
            face = "0.15" if default else "0.55" if row.own else "1.0"
            axes.barh(place, found.mean, 0.7, color=face, edgecolor="0.0", linewidth=0.6)
            ends = [[found.mean - found.low], [found.high - found.mean]]
            if np.isfinite(ends).all():
                axes.errorbar(
                    found.mean,
                    place,
                    xerr=np.maximum(ends, 0),
                    fmt="none",
                    ecolor="0.0",
                    elinewidth=0.9,
                    capsize=2,
                )
        title = f"{part} ({analysis.queries[part]} queries)" if part == ALL else part
        axes.set_title(title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(places, [row.family for row in rows], fontsize=8)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    figure.supxlabel(
        "LDS on the reporting half, 95 % intervals over subsets and queries; dashed: noise "
        "ceiling\nblack: the default, grey: other ways of unlearning, white: rivals and controls",
        fontsize=8,
    )
    return figure


def cost(analysis: Analysis) -> Figure:
    """LDS against the passes that a query takes; points are numbered, since many lie close."""
    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    axes: Axes = figure.subplots()
    placed: list[tuple[float, float]] = []
    names = []
    rows = [row for row in analysis.rows if ALL in row.parts and np.isfinite(row.cost.query)]
    for row in sorted(rows, key=lambda row: -row.parts[ALL].lds.mean):
        found, x = row.parts[ALL].lds, max(1.0, row.cost.query)
        face = "0.0" if row.variant == analysis.default else "0.6" if row.own else "1.0"
        axes.plot(x, found.mean, "o", color="0.0", markerfacecolor=face, markersize=6)
        if np.isfinite(found.low):
            axes.vlines(x, found.low, found.high, color="0.5", linewidth=0.8, zorder=0)
        y = found.mean
        while any(abs(np.log10(x / a)) < 0.2 and abs(y - b) < 0.045 for a, b in placed):
            y -= 0.005
        placed.append((x, y))
        names.append(row.family)
        axes.annotate(
            str(len(names)),
            (x, found.mean),
            (x * 1.22, y),
            fontsize=7,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.5},
        )
    axes.axhline(analysis.ceilings[ALL].mean, color="0.3", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel(
        "passes of one latent through the network for a query (1: none)\n"
        "black: the default, grey: other ways of unlearning; dashed: noise ceiling"
    )
    axes.set_ylabel("LDS")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    key = "\n".join(f"{i}  {name}" for i, name in enumerate(names, 1))
    axes.text(1.02, 0.98, key, transform=axes.transAxes, fontsize=8, va="top", linespacing=1.5)
    return figure


def removals(table: Mapping[str, list[Any]]) -> Figure:
    """How far a query's loss rises without the best tracks of each method."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes: Axes = figure.subplots()
    methods = list(dict.fromkeys(table["method"]))
    for i, method in enumerate(methods):
        color, marker, line = _LINES[i % len(_LINES)]
        rows = [j for j, name in enumerate(table["method"]) if name == method]
        x, mean, low, high = (
            np.array([table[name][j] for j in rows], float)
            for name in ("removed", "rise", "low", "high")
        )
        shift = x * (1 + 0.03 * (i - (len(methods) - 1) / 2))
        axes.errorbar(
            shift,
            mean,
            np.maximum([mean - low, high - mean], 0),
            color=color,
            marker=marker,
            linestyle=line,
            capsize=2,
            label=method,
            elinewidth=0.9,
        )
    axes.axhline(0, color="0.0", linewidth=0.8)
    axes.set_xticks(sorted(set(table["removed"])))
    axes.set_xlabel("tracks removed from the training")
    axes.set_ylabel("mean rise of the query's loss")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
