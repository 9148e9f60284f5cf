"""The demo over several seeds: what its figures are, with intervals over music and training.

python -m experiments.demo_seeds --workdir demo_seeds
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments import cards, demo
from experiments.attribute_outputs import write_summary
from experiments.progress import Bars, Progress
from tda_jax.artifact import whole_file
from tda_jax.errors import InputError
from tda_jax.evaluation import retrieval
from tda_jax.evaluation.verdicts import shown
from tda_jax.export import write_csv
from tda_jax.report.retrieval_figure import retrieval_figure

_NAMES = {
    "self_influence_mean_rank": "own rank",
    "relatives_auc": "relatives",
    "caption_mates_auc": "caption-mates",
    "member_auc": "members",
}


def run(config: ConfigDict, progress: Progress) -> list[retrieval.Row]:
    """Runs a card: a demo for each seed, then their table.

    Args:
        config: as `configs/demo_seeds.py` gives it.
        progress: told of work done.

    Returns:
        The rows of the table.

    Raises:
        InputError: something given cannot be used, or the folder holds another run.
    """
    seeds, workdir = list(config.seeds), Path(config.workdir)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds = {seeds}; give one at least, each once")
    by_seed = []
    for seed in seeds:
        print(f"=== seed {seed}")
        card = config.demo.copy_and_resolve_references()
        card.seed, card.workdir = seed, str(workdir / f"seed-{seed}")
        demo.run(card, progress)
        path = Path(card.workdir) / "evaluation.json"
        by_seed.append(json.loads(path.read_text(encoding="utf-8"))["rows"])
    by_chance = {name: _mean(by_seed[0], retrieval.CHANCE, name) for name in retrieval.METRICS}
    rows = retrieval.rows(_values(by_seed), by_chance)
    _write(workdir, rows, seeds)
    return rows


def _values(by_seed: list[list[dict[str, Any]]]) -> retrieval.Values:
    """By method and figure, the mean of each seed."""
    methods = [row["method"] for row in by_seed[0] if row["method"] != retrieval.CHANCE]
    return {
        method: {
            name: np.array([_mean(rows, method, name) for rows in by_seed])
            for name in retrieval.METRICS
        }
        for method in methods
    }


def _mean(rows: list[dict[str, Any]], method: str, name: str) -> float:
    (row,) = (row for row in rows if row["method"] == method)
    return float("nan") if row[name] is None else row[name]["mean"]


def _write(workdir: Path, rows: list[retrieval.Row], seeds: list[int]) -> None:
    note = f"Means over {len(seeds)} seeds {seeds}, with 95 % t-intervals over them."
    write_summary(
        workdir, {"note": note, "seeds": seeds, "rows": retrieval.as_json(rows)}, "evaluation.json"
    )
    columns: dict[str, list[Any]] = {"method": [row.method for row in rows]}
    for name in retrieval.METRICS:
        for part in ("mean", "low", "high"):
            values = [row.figures[name] for row in rows]
            columns[f"{name}_{part}"] = [None if x is None else getattr(x, part) for x in values]
    write_csv(workdir / "evaluation.csv", columns)
    lines = [note, "", "| | " + " | ".join(_NAMES.values()) + " |", "|---" * 5 + "|"]
    lines += [
        f"| {row.method} | " + " | ".join(_cell(row, name) for name in _NAMES) + " |"
        for row in rows
    ]
    with whole_file(workdir / "evaluation.md") as part:
        part.write_text("\n".join([*lines, ""]), encoding="utf-8")
    retrieval_figure(workdir / "evaluation.png", rows, note)
    print("\n".join(lines))
    print(f"wrote evaluation.md, .csv, .json and .png in {workdir}/")


def _cell(row: retrieval.Row, name: str) -> str:
    interval = row.figures[name]
    if row.method == retrieval.CHANCE and interval is not None:
        return f"{interval.mean:g}"
    return shown(interval)


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress and compiled programs that all seeds share."""
    cards.keep_compiled(Path(config.workdir) / "cache")
    with Bars() as bars:
        run(config, bars)


if __name__ == "__main__":
    cards.start(main, "configs/demo_seeds.py", {"workdir": "config.workdir"})
