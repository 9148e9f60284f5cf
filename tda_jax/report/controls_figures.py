"""Figures of the controls, from their table. Legible in grey; bars and points with t-intervals."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tda_jax.artifact import whole_file
from tda_jax.evaluation.controls_plan import Plan
from tda_jax.evaluation.controls_scores import METHODS, rise_name, step_names
from tda_jax.evaluation.records import Key, Table
from tda_jax.keys import BINS

_GREYS = ("0.4", "0.65", "0.8", "0.9", "1.0", "1.0")
_HATCHES = ("", "", "//", "", "..", "xx")
_LINES = (("0.0", "o", "-"), ("0.4", "s", "--"), ("0.0", "^", ":"), ("0.6", "D", "-."))
_FOUND = {
    "relatives": "relatives",
    "captions": "caption-mates",
    "decoys": "members of the work against\nequally similar decoys",
}
_AREA = (-0.02, 1.12)


def draw(folder: Path, table: Table, plan: Plan) -> list[Path]:
    """Draws every figure.

    Args:
        folder: where the PNG files go, in place of what was there.
        table: of the controls.
        plan: by which they were run.

    Returns:
        The files.

    Raises:
        InputError: the disk refuses.
    """
    figures: dict[str, Callable[[Table, Plan], Figure]] = {
        "methods": methods,
        "steps": steps,
        "quadratic": quadratic,
        "draws": draws,
        "bins": bins,
    }
    paths = []
    for name, make in figures.items():
        path = folder / f"{name}.png"
        with whole_file(path) as part:
            make(table, plan).savefig(part, format="png", dpi=150)
        paths.append(path)
    return paths


def methods(table: Table, plan: Plan) -> Figure:
    """What each method finds with each group, at ρ."""
    figure = Figure(figsize=(9.0, 8.4), layout="constrained")
    panels, step = figure.subplots(len(_FOUND), 1, sharex=True), rise_name(plan.rise)
    for axes, (metric, label) in zip(panels, _FOUND.items(), strict=True):
        width = 0.85 / len(METHODS)
        for i, method in enumerate(METHODS):
            keys = [Key("steps", metric, method, group, step) for group in plan.groups]
            places = np.arange(len(keys)) + (i - (len(METHODS) - 1) / 2) * width
            style = {"color": _GREYS[i], "hatch": _HATCHES[i], "edgecolor": "0.0", "linewidth": 0.6}
            mean, ends = _ends(table, keys)
            axes.bar(places, mean, width, label=method, **style)
            axes.errorbar(places, mean, ends, fmt="none", ecolor="0.0", elinewidth=0.9, capsize=2)
            if metric == "decoys":
                _unrelated(axes, table, keys, places, method == METHODS[0])
        _reference(axes, table, metric)
        axes.set_ylabel(f"AUC: {label}")
    panels[0].set_title(f"What scores find at {step}: means over seeds with 95 % t-intervals")
    panels[-1].set_xticks(range(len(plan.groups)), plan.groups)
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=5)
    return figure


def _unrelated(
    axes: Axes, table: Table, keys: Sequence[Key], places: np.ndarray, first: bool
) -> None:
    """What membership does for tracks that are not related to the query, on the same bars."""
    mean, _ = _ends(table, [key._replace(metric="unrelated") for key in keys])
    look = {"markersize": 5, "markerfacecolor": "1.0", "color": "0.0"}
    axes.plot(places, mean, "D", label="unrelated tracks" if first else None, **look)


def _reference(axes: Axes, table: Table, metric: str) -> None:
    """Chance, and what latent similarity finds."""
    like = table.seeds(Key("steps", metric, "latent similarity"))
    axes.axhline(0.5, color="0.0", linewidth=0.8, linestyle=":", label="chance")
    axes.axhline(
        np.nanmean(like), color="0.0", linewidth=1.2, linestyle="--", label="latent similarity"
    )
    axes.set_ylim(*_AREA)


def steps(table: Table, plan: Plan) -> Figure:
    """What exact scores find by the predicted rise of the query's own loss."""
    figure = Figure(figsize=(3.0 * len(plan.groups), 3.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(plan.groups), sharey=True))
    labels = {
        "relatives": "relatives",
        "captions": "caption-mates",
        "decoys": "members of the work against decoys of it",
        "unrelated": "other members against other decoys",
    }
    for axes, group in zip(panels, plan.groups, strict=True):
        rise = [
            float(np.nanmean(table.seeds(Key("steps", "own_rise", "linearised", group, name))))
            for name in step_names(plan)
        ]
        order = np.argsort(rise)
        for i, (metric, label) in enumerate(labels.items()):
            keys = [Key("steps", metric, "exact", group, step_names(plan)[j]) for j in order]
            apart = 1.08 ** (i - 1.5)  # so that the intervals do not hide each other
            _line(axes, table, np.array(rise)[order] * apart, keys, _LINES[i], label)
        axes.set_xscale("log")
        axes.set_title(group, fontsize=10)
        axes.axhline(0.5, color="0.0", linewidth=0.8, linestyle=":")
        axes.set_ylim(*_AREA)
        axes.set_xlabel("predicted rise of the query's loss")
    panels[0].set_ylabel("AUC of exact scores")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def quadratic(table: Table, plan: Plan) -> Figure:
    """How far the quadratic holds, at each loss level."""
    figure = Figure(figsize=(4.2 * len(plan.studied_groups), 6.4), layout="constrained")
    panels = figure.subplots(2, len(plan.studied_groups), sharex=True, sharey="row", squeeze=False)
    variants = (("quadratic", "1.0"), ("with the second-order term", "0.0"))
    for column, group in enumerate(plan.studied_groups):
        for i, updates in enumerate(plan.updates):
            line, apart = _LINES[i % len(_LINES)], 1.05 ** (i - (len(plan.updates) - 1) / 2)
            for method, face in variants:
                label = f"{updates} updates" + (", " + method if face == "0.0" else "")
                for axes, metric in zip(
                    panels[:, column], ("spearman", "relative_error"), strict=True
                ):
                    keys = [
                        Key("quadratic", metric, method, group, rise_name(rho), f"{updates}")
                        for rho in plan.rises
                    ]
                    _line(axes, table, np.array(plan.rises) * apart, keys, line, label, face)
        panels[0, column].set_title(group, fontsize=10)
        panels[0, column].set_xscale("log")
        panels[1, column].set_yscale("log")
        panels[1, column].set_xlabel("rise of the query's own loss")
    panels[0, 0].set_ylabel("rank correlation with exact scores")
    panels[1, 0].set_ylabel("median relative error")
    panels[0, 0].set_ylim(top=1.02)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def draws(table: Table, plan: Plan) -> Figure:
    """How scores repeat over draws of a track and draws of the query."""
    figure = Figure(figsize=(4.2 * len(plan.studied_groups), 6.8), layout="constrained")
    panels = figure.subplots(2, len(plan.studied_groups), sharey="row", squeeze=False)
    studies = (
        ("draws", plan.draw_counts, ("linearised", "odd", "even"), "draws of a track"),
        (
            "query_draws",
            plan.query_draw_counts,
            ("linearised, b as taken", "odd", "even, b as taken", "even, b from halves"),
            "draws of the query",
        ),
    )
    for row, (study, counts, by, label) in zip(panels, studies, strict=True):
        for axes, group in zip(row, plan.studied_groups, strict=True):
            for line, method in zip(_LINES, by, strict=False):
                keys = [Key(study, "repeated", method, group, str(count)) for count in counts]
                _line(axes, table, np.array(counts, float), keys, line, method)
            axes.set_xscale("log", base=2)
            axes.set_xticks(counts, [str(count) for count in counts])
            axes.set_xlabel(label)
            axes.set_title(group, fontsize=10)
            axes.legend(frameon=False, fontsize=8, loc="lower right")
        row[0].set_ylabel("rank correlation of\nindependent sets")
        row[0].set_ylim(top=1.03)
    return figure


def bins(table: Table, plan: Plan) -> Figure:
    """Which timesteps carry the loss, the scores, and the quadratic's error."""
    level, step = f"{plan.updates[-1]}", rise_name(plan.rise)
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    panels, places = figure.subplots(1, 3), np.arange(BINS, dtype=float)
    loss = [Key("bins", f"loss_bin{b}", "loss before", level=level) for b in range(BINS)]
    mean, ends = _ends(table, loss)
    panels[0].bar(places, mean, color="0.75", edgecolor="0.0", yerr=ends, capsize=2)
    panels[0].set_title("share of the members' loss", fontsize=10)
    for line, group in zip(_LINES, plan.studied_groups, strict=False):
        shares = [Key("bins", f"rise_bin{b}", "exact", group, step) for b in range(BINS)]
        errors = [
            Key("quadratic", f"relative_error_bin{b}", "quadratic", group, step, level)
            for b in range(BINS)
        ]
        _line(panels[1], table, places, shares, line, group)
        _line(panels[2], table, places, errors, line, group)
    panels[1].set_title(f"share of |Δτ| at {step}", fontsize=10)
    panels[2].set_title("median relative error of the quadratic", fontsize=10)
    for axes in panels:
        axes.set_xticks(range(BINS))
        axes.set_xlabel("timestep bin, 0 the cleanest")
        axes.set_ylim(bottom=0)
    panels[1].legend(frameon=False, fontsize=8)
    return figure


def _line(
    axes: Axes,
    table: Table,
    x: np.ndarray,
    keys: Sequence[Key],
    line: tuple[str, str, str],
    label: str,
    face: str | None = None,
) -> None:
    colour, marker, style = line
    mean, ends = _ends(table, keys)
    look = {"color": colour, "marker": marker, "linestyle": style, "markersize": 4.5}
    look |= {"elinewidth": 0.8, "capsize": 2, "linewidth": 1.1}
    axes.errorbar(x, mean, ends, label=label, markerfacecolor=face or colour, **look)


def _ends(table: Table, keys: Sequence[Key]) -> tuple[np.ndarray, np.ndarray]:
    """Means, and the lengths of their intervals below and above; no bar for a single seed."""
    intervals = [table.interval(key) for key in keys]
    mean = np.array([np.nan if i is None else i.mean for i in intervals])
    ends = np.array([[np.nan] * 2 if i is None else [i.low, i.high] for i in intervals]).T
    lengths = np.abs(ends - mean)
    return mean, np.where(np.isnan(lengths), 0.0, lengths)
