"""Tests what unlearning scores find on corpora whose relations are known, without retraining.

python -m experiments.controls --config=configs/controls.py --config.workdir=DIR
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments import cards
from experiments.progress import Bars, Progress
from tda_jax import devices, fingerprint
from tda_jax.artifact import whole_file
from tda_jax.evaluation import controls, controls_tables, controls_verdict
from tda_jax.evaluation.controls_plan import Plan
from tda_jax.evaluation.network import Network
from tda_jax.evaluation.records import Table
from tda_jax.evaluation.small_unet import small_unet
from tda_jax.evaluation.verdicts import Finding
from tda_jax.export import write_csv
from tda_jax.models.denoiser import predict_fn
from tda_jax.report import controls_figures


def network(seed: int) -> Network:
    """The small UNet of a seed, before training."""
    made = small_unet(seed)
    return Network(predict_fn(made.module), made.schedule, made.params, made.groups)


def plan_of(config: ConfigDict) -> Plan:
    """The plan that a card asks for."""
    return Plan(**{name: config[name] for name in Plan._fields})


def run(
    config: ConfigDict, progress: Progress, make: Callable[[int], Network] = network
) -> list[Finding]:
    """Runs what is missing of the controls, and writes tables, figures and the verdict."""
    began, plan, workdir = time.monotonic(), plan_of(config), Path(config.workdir)
    used = devices.local_devices()
    table = controls.run(make, plan, workdir, config.batch_pairs, used, progress)
    found = controls_verdict.findings(table, plan)
    suggested = controls_verdict.provisional(table, plan)
    broken = controls_verdict.not_finite(table)
    verdict = controls_verdict.text(found, suggested, broken, plan)
    for name, layout in controls_tables.LAYOUTS.items():
        write_csv(workdir / "tables" / f"{name}.csv", controls_tables.rows(table, layout))
    write_csv(workdir / "controls.csv", controls_tables.long(table))
    _write(workdir / "tables.md", controls_tables.markdown(table, controls_tables.LAYOUTS.values()))
    _write(workdir / "verdict.md", verdict)
    drawn = controls_figures.draw(workdir / "figures", table, plan)
    seconds = time.monotonic() - began
    result = _result(table, plan, found, suggested, seconds)
    _write(workdir / "controls.json", json.dumps(result, indent=1) + "\n")
    print(verdict)
    print(
        f"{len(found)} statements, {len(table.keys)} figures in {seconds:.0f} s; {workdir}: "
        f"verdict.md, tables.md, tables/, controls.csv, controls.json, "
        + ", ".join(f"figures/{path.name}" for path in drawn)
    )
    return found


def _result(
    table: Table, plan: Plan, found: list[Finding], suggested: list[str], seconds: float
) -> dict[str, Any]:
    columns = controls_tables.long(table)
    names = list(columns)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for row, key in zip(rows, table.keys, strict=True):
        row["by_seed"] = [None if x != x else x for x in table.seeds(key).tolist()]
        row |= {end: None if row[end] != row[end] else row[end] for end in ("low", "high")}
    return {
        "plan": plan._asdict(),
        "findings": [f._asdict() for f in found],
        "provisional": suggested,
        "seconds": seconds,
        "made_of": {
            "code": fingerprint.of_code("tda_jax.evaluation.controls"),
            "versions": fingerprint.versions(),
        },
        "figures": rows,
    }


def _write(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress and compiled programs that are kept."""
    jax.config.update("jax_num_cpu_devices", config.cpu_devices)
    cards.keep_compiled(Path(config.workdir))
    with Bars() as bars:
        run(config, bars)


if __name__ == "__main__":
    cards.start(main, "configs/controls.py")
