"""The comparison with retraining as tables, and in words."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tda_jax.baselines.ways import Variant
from tda_jax.evaluation import comparison, removal
from tda_jax.evaluation.ranking import Interval
from tda_jax.evaluation.truth_analysis import ALL, FALSE_DISCOVERIES, Analysis, Row
from tda_jax.evaluation.verdicts import shown

_SETTINGS: dict[str, Callable[[Variant], str]] = {
    "rule": lambda v: v.rule,
    "group": lambda v: v.way.group,
    "damping": lambda v: f"{v.way.damping:g}",
    "step": lambda v: "any" if v.rise is None else f"{v.rise:g}",
    "weighting": lambda v: v.weighting,
    "Fisher": lambda v: v.way.fisher,
    "draws": lambda v: "shared by all tracks" if v.shared else "of each track",
}

_NAN = Interval(float("nan"), float("nan"), float("nan"), 0)
_NOTHING = comparison.Row("", _NAN, _NAN, _NAN, _NAN, _NAN, float("nan"))

Removed = Mapping[str, Mapping[int, Any]]
"""By method and number of tracks removed, the rise of each query's loss."""


def columns(analysis: Analysis) -> dict[str, list[Any]]:
    """The table of families, every figure with the ends of its interval."""
    found: dict[str, list[Any]] = {"family": [], "variant": [], "passes_shared": []}
    found["passes_query"] = []
    for row in analysis.rows:
        found["family"].append(row.family)
        found["variant"].append(row.variant)
        found["passes_shared"].append(_number(row.cost.shared))
        found["passes_query"].append(_number(row.cost.query))
        for name, value in _figures(row, analysis.ceilings).items():
            ends = value if isinstance(value, Interval) else None
            found.setdefault(name, []).append(value if ends is None else _number(ends.mean))
            if ends is not None:
                for end in ("low", "high"):
                    found.setdefault(f"{name}_{end}", []).append(_number(getattr(ends, end)))
    return found


def variants(analysis: Analysis) -> dict[str, list[Any]]:
    """Every variant with its LDS on both halves of the subsets, the highest choosing LDS first."""
    rows = sorted(analysis.variants.items(), key=lambda item: -_or_low(item[1][1]))
    return {
        "variant": [name for name, _ in rows],
        "family": [family for _, (family, _, _) in rows],
        "lds_choosing": [_number(lds) for _, (_, lds, _) in rows],
        "lds_reporting": [_number(lds) for _, (_, _, lds) in rows],
    }


def settings(analysis: Analysis, named: Mapping[str, Variant]) -> dict[str, list[Any]]:
    """What each setting of unlearning does, all else equal.

    Args:
        analysis: with the variants' LDS.
        named: the variants of unlearning by name; controls are left out.

    Returns:
        For each value of each setting other than the default's, over the pairs of variants that
        differ in that setting alone: how many there are, and the mean LDS of those with the value
        less that of those with the default's, on both halves.
    """
    table: dict[str, list[Any]] = {name: [] for name in ("setting", "value", "against", "pairs")}
    table |= {"lds_choosing": [], "lds_reporting": []}
    plain = {n: v for n, v in named.items() if v.rule != "learnt" and not v.way.scrambled}
    for setting, read in _SETTINGS.items():
        usual = read(named[analysis.default])
        rest = {
            n: tuple(r(v) for s, r in _SETTINGS.items() if s != setting) for n, v in plain.items()
        }
        with_usual = {rest[n]: n for n, v in plain.items() if read(v) == usual}
        for value in sorted({read(v) for v in plain.values()} - {usual}):
            pairs = [
                (n, with_usual[rest[n]])
                for n, v in plain.items()
                if read(v) == value and rest[n] in with_usual
            ]
            means = [
                sum(analysis.variants[n][h] - analysis.variants[m][h] for n, m in pairs)
                / max(1, len(pairs))
                for h in (1, 2)
            ]
            if pairs:
                cells = (setting, value, usual, len(pairs), *map(_number, means))
                for name, cell in zip(table, cells, strict=True):
                    table[name].append(cell)
    return table


def for_report(analysis: Analysis, first: str) -> dict[str, Any]:
    """What a report of the queries shows; the method that it is about comes first.

    Args:
        analysis: of the comparison.
        first: the family of the report's own scores.
    """
    rows = sorted(analysis.rows, key=lambda row: row.family != first)
    ceiling = analysis.ceilings[ALL]
    held = {row.family: row.parts[ALL] for row in rows if ALL in row.parts}
    best = max(rows, key=lambda row: _or_low(analysis.variants[row.variant][1])).family
    said = [
        f"What is highest on the other sets, {best}, has {shown(held[best].lds)} here; {first}: "
        f"{shown(held[first].lds)}; noise ceiling: {shown(ceiling)}."
    ]
    return {
        "note": f"{analysis.queries[ALL]} queries, {analysis.subsets[1]} sets of removed tracks; "
        "95 % intervals over both.",
        "ceiling": _as_json(ceiling),
        "rows": [{"method": f, "own": f == first, "lds": _as_json(x.lds)} for f, x in held.items()],
        "verdict": said,
    }


def removals(found: Removed, reference: str) -> dict[str, list[Any]]:
    """The table of removals: by method and number of tracks, the mean rise and its interval."""
    table: dict[str, list[Any]] = {name: [] for name in ("method", "removed", "rise", "low")}
    table |= {name: [] for name in ("high", "behind", "behind_low", "behind_high")}
    for k in next(iter(found.values())):
        held = removal.compare_removals({m: by_k[k] for m, by_k in found.items()}, reference)
        for method, (rise, behind) in held.items():
            values = (method, k, *rise[:3], *behind[:3])
            for name, value in zip(table, values, strict=True):
                table[name].append(value)
    return table


def markdown(
    analysis: Analysis, each: Mapping[str, list[Any]], taken: Mapping[str, list[Any]] | None
) -> str:
    """The tables for people."""
    parts = list(analysis.ceilings)
    head = ["method", "variant", "of", "passes a query", f"LDS, {ALL} queries", "of the ceiling"]
    head += ["this query's own", "beyond likeness", "default ahead by", "highest ahead by"]
    head += [*(f"LDS, {p}" for p in parts[1:]), "relatives", "caption-mates", "members"]
    head += ["called", "precision"]
    lines = ["# Scores against retraining", "", _note(analysis), "", _line(head)]
    lines.append("|" + "---|" * len(head))
    lines += [_line(_cells(row, parts, analysis)) for row in analysis.rows]
    top = [shown(analysis.ceilings[part]) for part in parts]
    blank = [""] * 4
    lines.append(_line(["*noise ceiling*", *blank[1:], top[0], "", *blank, *top[1:], *blank, ""]))
    lines += ["", *_setting_lines(each)]
    if taken is not None:
        lines += ["", *_removal_lines(taken)]
    return "\n".join([*lines, ""])


def _cells(row: Row, parts: Sequence[str], analysis: Analysis) -> list[str]:
    default, highest = (row.variant == x for x in (analysis.default, analysis.highest))
    mark = "**" if default else ""
    held, found = row.parts, row.found
    passes = f"{row.cost.query:,.0f}" if _number(row.cost.query) is not None else ""
    cells = [f"{mark}{row.family}{mark}", row.variant, str(row.choices), passes]
    whole = held.get(ALL)
    if whole is None:
        cells += [""] * 6
    else:
        share = f"{whole.share:.0%}" if _number(whole.share) is not None else "none"
        cells += [shown(whole.lds), share, shown(whole.specific), _shown(whole.partial)]
        cells.append("" if default else shown(whole.behind))
        cells.append("" if highest else shown(whole.below))
    cells += [shown(held[part].lds) if part in held else "" for part in parts[1:]]
    cells += [_shown(x) for x in (found.relatives, found.captions, found.decoys)]
    known = found.precision == found.precision
    return [*cells, f"{found.called:.1f}", f"{found.precision:.2f}" if known else "none"]


def _setting_lines(table: Mapping[str, list[Any]]) -> list[str]:
    head = ["setting", "value", "against", "pairs", "more LDS, choosing", "more LDS, reporting"]
    lines = ["## What each setting does, all else equal", "", _line(head), "|" + "---|" * len(head)]
    for *words, choosing, reporting in zip(*table.values(), strict=True):
        figures = ("none" if x is None else f"{x:+.3f}" for x in (choosing, reporting))
        lines.append(_line([*map(str, words), *figures]))
    return lines


def _removal_lines(table: Mapping[str, list[Any]]) -> list[str]:
    methods = list(dict.fromkeys(table["method"]))
    counts = list(dict.fromkeys(table["removed"]))
    lines = ["## The best tracks removed: mean rise of the query's loss", ""]
    head = [words for k in counts for words in (f"{k} tracks", f"{methods[0]} ahead by")]
    lines += [_line(["method", *head]), "|" + "---|" * (len(head) + 1)]
    cells = {}
    for i, (method, k) in enumerate(zip(table["method"], table["removed"], strict=True)):
        rise, behind = (
            Interval(*(table[name][i] for name in names), 0)
            for names in (("rise", "low", "high"), ("behind", "behind_low", "behind_high"))
        )
        cells[method, k] = [shown(rise, 4), "" if method == methods[0] else shown(behind, 4)]
    return lines + [_line([m, *(x for k in counts for x in cells[m, k])]) for m in methods]


def _note(analysis: Analysis) -> str:
    choosing, reporting = analysis.subsets
    return (
        f"Variants were chosen on {choosing} subsets; all of this is of {reporting} others, and "
        f"of {analysis.queries[ALL]} queries. LDS with 95 % intervals over subsets and queries; "
        "this query's own: LDS less that of the mean scores of the other queries, which know "
        "nothing of it; highest: of all methods, on the choosing half; beyond likeness: given "
        "similarity of latents and captions and the number of relatives. Relatives, caption-"
        "mates and members are areas under the curve, with intervals over queries; a generated "
        "query's relatives are those of the track whose latent is most like it, which favours "
        "latent similarity. Passes are of one latent forward through the network; called is how "
        f"many tracks pass a false-discovery rate of {FALSE_DISCOVERIES:g}, precision what held-"
        f"out decoys say of them; with so few decoys {analysis.fewest} members pass together or "
        "none does."
    )


def verdict(analysis: Analysis, taken: Mapping[str, list[Any]] | None) -> list[str]:
    """What the tables say, a sentence each."""
    by_variant = {row.variant: row for row in analysis.rows}
    default = by_variant[analysis.default]
    said = [
        f"Of unlearning's variants, `{analysis.default}` is chosen: LDS "
        f"{shown(default.parts[ALL].lds)} on the other half, of a noise ceiling of "
        f"{shown(analysis.ceilings[ALL])}."
    ]
    others = [row for row in analysis.rows if row.variant != analysis.default]
    said += [_against(row) for row in others if ALL in row.parts]
    said += _said_of_highest(analysis)
    parts = [part for part in analysis.ceilings if part != ALL]
    said += [
        f"{part}: the default has {shown(default.parts[part].lds)}, of a ceiling of "
        f"{shown(analysis.ceilings[part])}."
        for part in parts
    ]
    said.append(
        f"Of {len(analysis.rows) - 1} comparisons with the default one in twenty is expected to "
        "seem decided by luck: the intervals are of 95 % each."
    )
    if taken is not None:
        said += _said_of_removals(taken)
    return said


def _said_of_highest(analysis: Analysis) -> list[str]:
    """What is highest on the choosing half, where it is not the default."""
    if analysis.highest == analysis.default:
        return []
    top = next(row for row in analysis.rows if row.variant == analysis.highest)
    rest = [row for row in analysis.rows if row is not top and ALL in row.parts]
    apart = [row.family for row in rest if row.parts[ALL].below.low > 0]
    like = [row.family for row in rest if row.family not in apart]
    return [
        f"Highest of all on the choosing half is {top.family} (`{top.variant}`): LDS "
        f"{shown(top.parts[ALL].lds)} on the other. Behind it are {', '.join(apart) or 'none'}; "
        f"not told apart from it, or ahead, {', '.join(like) or 'none'}."
    ]


def _against(row: Row) -> str:
    held = row.parts[ALL]
    how = _told_apart(held.behind, "the default")
    return f"{row.family} {how}: LDS {shown(held.lds)}, less by {shown(held.behind)}."


def _told_apart(behind: Interval, reference: str) -> str:
    if behind.low > 0:
        return f"is behind {reference}"
    return f"is AHEAD of {reference}" if behind.high < 0 else f"is not told apart from {reference}"


def _as_json(interval: Interval) -> dict[str, Any]:
    ends = {k: _number(float(getattr(interval, k))) for k in ("mean", "low", "high")}
    return {**ends, "count": int(interval.count)}


def _said_of_removals(table: Mapping[str, list[Any]]) -> list[str]:
    reference = table["method"][0]
    said = []
    rows = zip(*(table[n] for n in ("method", "removed", "behind_low", "behind_high")), strict=True)
    for method, k, low, high in rows:
        if method == reference:
            continue
        how = "is not told apart from that"
        if low > 0:
            how = "is less than"
        elif high < 0:
            how = "is MORE than"
        said.append(
            f"The rise of the loss without the {k} tracks of {method} {how} without those of "
            f"{reference}."
        )
    return said


def _figures(row: Row, parts: Iterable[str]) -> dict[str, Any]:
    held = row.parts.get(ALL, _NOTHING)
    found: dict[str, Any] = {n: getattr(held, n) for n in ("lds", "specific", "partial")}
    found |= {"behind": held.behind, "below": held.below}
    found |= {"share": _number(held.share), "choices": row.choices}
    found |= {f"lds {part}": row.parts.get(part, _NOTHING).lds for part in parts if part != ALL}
    found |= row.found._asdict()
    return found


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _shown(interval: Interval) -> str:
    return shown(interval) if interval.mean == interval.mean else "none"


def _number(x: float) -> float | None:
    return x if x == x else None


def _or_low(x: float) -> float:
    return x if x == x else float("-inf")
