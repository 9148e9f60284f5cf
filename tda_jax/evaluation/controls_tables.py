"""The figures of the controls as tables: long ones for programs, short ones for people."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from tda_jax.evaluation import verdicts
from tda_jax.evaluation.records import Key, Table


class Layout(NamedTuple):
    """How a study is laid out.

    Attributes:
        title: what it shows.
        study: whose figures.
        rows: parts of the key that make a row.
        columns: metrics, each with its interval.
        digits: after the point.
    """

    title: str
    study: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    digits: int = 2


_FOUND = ("self_rank", "relatives", "captions", "decoys", "unrelated", "own_members")
_FOUND += ("decoy_relatives",)

LAYOUTS = {
    "levels": Layout("Mean loss at each level", "levels", ("level", "method"), ("loss",), 3),
    "matched": Layout(
        "Members less decoys, in standard deviations",
        "levels",
        ("level", "method"),
        ("difference",),
    ),
    "steps": Layout(
        "What the scores find; `reversed` is linearised, at -lr",
        "steps",
        ("step", "group", "method"),
        _FOUND,
    ),
    "own": Layout(
        "The query's own rise; the share of tracks above zero; the share of the highest tenth",
        "steps",
        ("step", "group", "method"),
        ("own_rise", "positive_members", "positive_decoys", "top_tenth", "not_finite"),
        3,
    ),
    "agreement": Layout(
        "Rank correlation with exact scores, members and decoys",
        "steps",
        ("step", "group", "method"),
        ("agreement",),
        3,
    ),
    "quadratic": Layout(
        "The quadratic against exact scores, members",
        "quadratic",
        ("level", "group", "step", "method"),
        ("spearman", "top10", "relative_error"),
        3,
    ),
    "quadratic_bins": Layout(
        "Median relative error by timestep bin, 0 the cleanest",
        "quadratic",
        ("level", "group", "step", "method"),
        tuple(f"relative_error_bin{b}" for b in range(10)),
        3,
    ),
    "levels_found": Layout(
        "What the scores find at each level, members",
        "quadratic",
        ("level", "group", "step", "method"),
        ("self_rank", "relatives", "captions"),
    ),
    "probes": Layout(
        "Rank correlation with exact scores, b from random output probes",
        "probes",
        ("step", "group", "method"),
        ("agreement",),
        3,
    ),
    "draws": Layout(
        "Rank correlation of independent sets of a track's draws",
        "draws",
        ("group", "method", "step"),
        ("repeated",),
    ),
    "naive_error": Layout(
        "Standard error from all draws over that within strata",
        "draws",
        ("group",),
        ("naive_error",),
    ),
    "query_draws": Layout(
        "Rank correlation of independent sets of the query's draws; share by which b is lifted",
        "query_draws",
        ("group", "method", "step"),
        ("repeated", "bias"),
        3,
    ),
    "half": Layout(
        "bfloat16 against float32", "half", ("group", "method"), ("spearman", "top10"), 4
    ),
    "loss_bins": Layout(
        "Share of the members' loss by timestep bin",
        "bins",
        ("level", "method"),
        tuple(f"loss_bin{b}" for b in range(10)),
    ),
    "rise_bins": Layout(
        "Share of |Δτ| by timestep bin",
        "bins",
        ("step", "group", "method"),
        tuple(f"rise_bin{b}" for b in range(10)),
    ),
}


def long(table: Table) -> dict[str, list[Any]]:
    """Every figure, a row each: the parts of its key, mean, interval and seeds with a value."""
    columns: dict[str, list[Any]] = {name: [] for name in (*Key._fields, "mean", "low", "high")}
    columns["seeds"] = []
    for key in table.keys:
        interval = table.interval(key)
        for name, part in zip(Key._fields, key, strict=True):
            columns[name].append(part)
        for name in ("mean", "low", "high"):
            columns[name].append(None if interval is None else getattr(interval, name))
        columns["seeds"].append(0 if interval is None else interval.count)
    return columns


def rows(table: Table, layout: Layout) -> dict[str, list[Any]]:
    """A table laid out: columns by name, each metric as its mean, its low and its high end."""
    found = _by_row(table, layout)
    columns: dict[str, list[Any]] = {
        name: [row[i] for row in found] for i, name in enumerate(layout.rows)
    }
    for metric in layout.columns:
        intervals = [
            table.interval(by_metric[metric]) if metric in by_metric else None
            for by_metric in found.values()
        ]
        for end in ("mean", "low", "high"):
            name = metric if end == "mean" else f"{metric}_{end}"
            columns[name] = [None if i is None else getattr(i, end) for i in intervals]
    return columns


def markdown(table: Table, layouts: Iterable[Layout]) -> str:
    """The tables for people, one after another."""
    return "\n".join(_markdown(table, layout) for layout in layouts)


def _markdown(table: Table, layout: Layout) -> str:
    lines = [f"## {layout.title}", ""]
    lines.append("| " + " | ".join((*layout.rows, *layout.columns)) + " |")
    lines.append("|" + "---|" * (len(layout.rows) + len(layout.columns)))
    for row, by_metric in _by_row(table, layout).items():
        cells = [
            verdicts.shown(table.interval(by_metric[m]), layout.digits) if m in by_metric else ""
            for m in layout.columns
        ]
        lines.append("| " + " | ".join((*row, *cells)) + " |")
    return "\n".join([*lines, ""])


def _by_row(table: Table, layout: Layout) -> dict[tuple[str, ...], dict[str, Key]]:
    found: dict[tuple[str, ...], dict[str, Key]] = {}
    for key in table.select(study=layout.study):
        if key.metric in layout.columns:
            row = tuple(getattr(key, part) for part in layout.rows)
            found.setdefault(row, {})[key.metric] = key
    return found
