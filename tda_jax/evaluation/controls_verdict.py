"""The verdict of the controls in words: each claim, what became of it, and by which figures."""

from collections.abc import Sequence

import numpy as np

from tda_jax.evaluation import controls_calibration_claims, controls_claims
from tda_jax.evaluation.controls_claims import reaches
from tda_jax.evaluation.controls_plan import Plan
from tda_jax.evaluation.controls_scores import rise_name
from tda_jax.evaluation.records import Key, Table
from tda_jax.evaluation.verdicts import FAILS, HOLDS, OPEN, Finding

_ENOUGH = {"draws": 0.8, "query_draws": 0.95}  # rank correlations of independent sets


def findings(table: Table, plan: Plan) -> list[Finding]:
    """Every claim, in the order of their numbers."""
    claims = (*controls_claims.CLAIMS, *controls_calibration_claims.CLAIMS)
    return [claim(table, plan) for claim in claims]


def provisional(table: Table, plan: Plan) -> list[str]:
    """What the figures suggest as defaults, until models are retrained; "none" where none does."""
    lines = []
    for group in plan.studied_groups:
        steps = [
            reaches(table, [_quadratic(group, rho, updates) for rho in plan.rises])
            for updates in plan.updates
        ]
        known = [float(step.split()[1]) for step in steps if step]
        least = f"{min(known):g}" if len(known) == len(steps) else "none of those tried"
        lines.append(f"largest rise at which the linearised pass stands, {group}: {least}")
        for study, counts, method, what in (
            ("draws", plan.draw_counts, "linearised", "draws a track"),
            ("query_draws", plan.query_draw_counts, "linearised, b as taken", "query draws"),
        ):
            enough = [n for n in counts if _repeats(table, study, method, group, n)]
            fewest = str(enough[0]) if enough else f"more than {counts[-1]}"
            lines.append(f"{what} to repeat at {_ENOUGH[study]} in the mean, {group}: {fewest}")
    return lines


def not_finite(table: Table) -> list[str]:
    """Where exact losses were not finite, and for which share of the tracks."""
    shares = {key: table.seeds(key) for key in table.select(metric="not_finite")}
    return [
        f"{key.group} at {key.step}: {np.nanmean(share):.3f} of the tracks"
        for key, share in shares.items()
        if np.nanmax(share) > 0
    ]


def text(
    found: Sequence[Finding], suggestions: Sequence[str], broken: Sequence[str], plan: Plan
) -> str:
    """The verdict as Markdown; `broken` from `not_finite`."""
    counts = {v: sum(f.verdict == v for f in found) for v in (HOLDS, FAILS, OPEN)}
    tally = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    seeds = f"{len(plan.seeds)} seeds, each a corpus and a training of its own"
    lines = [
        "# Verdict of the controls",
        "",
        f"{len(found)} statements: {tally}. Figures are means over {plan.queries} queries and "
        f"{seeds}, with 95 % t-intervals over the seeds. A statement is decided only where the "
        "whole interval lies on one side of the threshold that it names. All is of one small "
        "network and synthetic latents, with training tracks as queries and no model retrained: "
        "nothing here says which influence is true.",
        "",
    ]
    for f in found:
        lines += [f"## {f.number}: {f.verdict}", "", f"{f.claim}.", ""]
        lines += [*(f"- {figure}" for figure in f.figures), ""]
    if broken:
        lines += ["## Left out", "", "Exact losses were not finite, and tracks are left out:", ""]
        lines += [*(f"- {line}" for line in broken), ""]
    lines += ["## Provisional defaults", "", "Until models are retrained:", ""]
    return "\n".join([*lines, *(f"- {line}" for line in suggestions), ""])


def _quadratic(group: str, rise: float, updates: int) -> Key:
    return Key("quadratic", "spearman", "quadratic", group, rise_name(rise), f"{updates}")


def _repeats(table: Table, study: str, method: str, group: str, count: int) -> bool:
    found = table.interval(Key(study, "repeated", method, group, str(count)))
    return found is not None and found.mean >= _ENOUGH[study]
