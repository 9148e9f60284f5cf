"""Sweeps over tracks: the ancestor's way in torch, ours exact, ours linearised.

    python -m benchmarks.sweep --out=benchmarks/results/sweep-cpu.json

(a) the ancestor's way: eager torch, one call for each repeated batch, text projections per draw;
the same compiled may be faster. (b) ours, exact. (c) ours, linearised, along Q queries of B blocks
each: one pass gives the scores of every learning rate. Same shapes, draws, threads and float32
products. Every case is warmed up, then all are timed in turn, round after round, each library in
its own process, idle while the other runs; figures are medians. Run it on an idle machine.
"""

import json
import statistics
import sys
import time
from pathlib import Path

from absl import app, flags

from benchmarks import hardware
from benchmarks.sweep_setting import SETTINGS
from benchmarks.worker import Worker

_OUT = flags.DEFINE_string("out", None, "JSON file for the result.", required=True)
_SETTINGS = flags.DEFINE_list("settings", list(SETTINGS), "Which UNets.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed calls of each case.", lower_bound=3)
_DRAWS = flags.DEFINE_integer("draws", 4, "Draws of a track.")
_TRACKS = flags.DEFINE_integer("tracks", 1, "Tracks in a call.")
_BATCHES = flags.DEFINE_list("batches", ["4"], "(track, draw) pairs at a time.")
_LINEAR = flags.DEFINE_list("linear", ["1x1", "8x1", "1x2", "8x2", "1x8"], "Queries x blocks.")
_BFLOAT16 = flags.DEFINE_bool("bfloat16", False, "Linearised in bfloat16 too.")
_COMPILED = flags.DEFINE_bool("compiled", True, "Time torch.compile too.")


def _cases(setting: str) -> dict[str, tuple[str, dict]]:
    """Case → (library, request)."""
    found = {}
    for batch in map(int, _BATCHES.value):
        base = {"setting": setting, "draws": _DRAWS.value, "tracks": _TRACKS.value, "batch": batch}
        found[f"ours exact, batch {batch}"] = ("jax", {"setup": "exact", **base})
        for compiled in (False, True)[: 1 + _COMPILED.value]:
            for layout in ("channels_first", "channels_last"):
                mode = "compiled" if compiled else "eager"
                request = {"setup": "losses", **base, "memory_format": layout, "compiled": compiled}
                found[f"torch {mode}, {layout}, batch {batch}"] = ("torch", request)
        for dtype in ("float32", "bfloat16")[: 1 + _BFLOAT16.value]:
            for queries, blocks in (map(int, pair.split("x")) for pair in _LINEAR.value):
                request = {"setup": "linear", **base, "dtype": dtype}
                request |= {"queries": queries, "blocks": blocks}
                name = f"ours linearised {dtype}, {queries} queries of {blocks} blocks"
                found[f"{name}, batch {batch}"] = ("jax", request)
    return found


def _measure(setting: str) -> dict[str, dict]:
    workers = {library: Worker(f"benchmarks.sweep_{library}") for library in ("jax", "torch")}
    cases, first = _cases(setting), {}
    for name, (library, request) in cases.items():
        first[name] = workers[library].ask(name=name, **request)
        print(f"warm: {name}, first call {first[name]:.1f} s", file=sys.stderr, flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(_ROUNDS.value):
        for name, (library, _) in cases.items():
            time.sleep(0.3)  # the other library's threads spin for a while before they sleep
            seconds[name].append(workers[library].ask(time=name))
        print(f"round {turn + 1} of {_ROUNDS.value}", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.close()
    return {name: {"first_call": first[name], "seconds": seconds[name]} for name in cases}


def _best(rows: list[dict], start: str) -> dict:
    return max(
        (r for r in rows if r["case"].startswith(start)), key=lambda r: r["draws_per_second"]
    )


def _rows(setting: str, measured: dict[str, dict]) -> list[dict]:
    pairs = _DRAWS.value * _TRACKS.value
    return [
        {
            "setting": setting,
            "case": name,
            "draws_per_second": pairs / statistics.median(m["seconds"]),
            "seconds": statistics.median(m["seconds"]),
            "first_call": m["first_call"],
        }
        for name, m in measured.items()
    ]


def _verdict(setting: str, rows: list[dict]) -> list[str]:
    ours, theirs = _best(rows, "ours exact"), _best(rows, "torch")
    eager = _best(rows, "torch eager")
    said = [
        f"{setting}: ours exact is {ours['draws_per_second'] / theirs['draws_per_second']:.2f} × "
        f"{theirs['case']} and {ours['draws_per_second'] / eager['draws_per_second']:.2f} × "
        f"the ancestor's way ({eager['case']})"
    ]
    for row in (r for r in rows if r["case"].startswith("ours linearised")):
        exact = 2 * ours["seconds"]
        line = f"{setting}: {row['case']}: {row['seconds'] / exact:.2f} × (before + after) exact"
        one = row["case"].replace(" 8 queries", " 1 queries")
        pair = next((r for r in rows if r["case"] == one and one != row["case"]), None)
        said.append(
            line + (f", {row['seconds'] / pair['seconds']:.2f} × one query" if pair else "")
        )
    return said


def _table(rows: list[dict]) -> str:
    lines = ["| UNet | case | tracks·draws a second | first call, s |", "|---|---|---|---|"]
    for row in rows:
        cells = (row["setting"], row["case"], f"{row['draws_per_second']:.2f}")
        first = f"{row['first_call']:.1f}"
        lines.append(f"| {' | '.join([*cells, first])} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Measures, prints the table and writes the result."""
    del argv
    machine = hardware.describe()
    measured = {setting: _measure(setting) for setting in _SETTINGS.value}
    rows = {setting: _rows(setting, m) for setting, m in measured.items()}
    verdict = [line for setting, r in rows.items() for line in _verdict(setting, r)]
    print(_table([row for r in rows.values() for row in r]))
    print("\n".join(verdict))
    result = {"machine": machine, "rounds": _ROUNDS.value, "draws": _DRAWS.value}
    result |= {"tracks": _TRACKS.value, "rows": rows, "verdict": verdict, "measured": measured}
    Path(_OUT.value).write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {_OUT.value}")


if __name__ == "__main__":
    app.run(main)
