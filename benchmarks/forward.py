"""Per-example losses of the full AudioLDM-s UNet: ours against eager and compiled torch.

    python -m benchmarks.forward --out=benchmarks/results/forward-cpu.json

Every case is warmed up, then all cases are timed in turn, round after round, each library in a
process of its own and idle while the other runs; figures are medians over the rounds. Rates are
FLOPs of the architecture (`FLOP_PER_EXAMPLE`) a second, beside those of a plain matrix product in
the same round. Run it on an idle machine: the load before the start is part of the result.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks import hardware
from benchmarks.forward_setting import FLOP_PER_EXAMPLE
from benchmarks.worker import Worker

_OUT = flags.DEFINE_string("out", None, "JSON file for the result.", required=True)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed calls of each case.", lower_bound=3)
_BATCHES = flags.DEFINE_list("batches", ["1", "4", "16"], "Batch sizes.")
_DTYPES = flags.DEFINE_list("dtypes", ["float32"], "float32, bfloat16.")
_PRODUCT = flags.DEFINE_integer("product", 2048, "Rows of the plain matrix product.")
_COMPILED = flags.DEFINE_bool("compiled", True, "Time torch.compile too.")


def _cases(dtype: str) -> dict[str, tuple[str, dict]]:
    """Case → (library, request)."""
    found = {}
    for library in ("jax", "torch"):
        request = {"setup": "product", "size": _PRODUCT.value, "dtype": dtype}
        found[f"{library} product"] = (library, request)
    for batch in map(int, _BATCHES.value):
        request = {"setup": "losses", "batch": batch, "dtype": dtype}
        found[f"jax vmap, batch {batch}"] = ("jax", request)
        for compiled in (False, True)[: 1 + _COMPILED.value]:
            for layout in ("channels_first", "channels_last"):
                mode = "compiled" if compiled else "eager"
                name = f"torch {mode}, {layout}, batch {batch}"
                found[name] = ("torch", request | {"memory_format": layout, "compiled": compiled})
    return found


def _measure(dtype: str) -> dict[str, dict]:
    workers = {library: Worker(f"benchmarks.forward_{library}") for library in ("jax", "torch")}
    cases, seconds, first = _cases(dtype), {}, {}
    for name, (library, request) in cases.items():
        first[name] = workers[library].ask(name=name, **request)
        workers[library].ask(time=name)
        seconds[name] = []
        print(f"warm: {name}, first call {first[name]:.1f} s", file=sys.stderr, flush=True)
    for turn in range(_ROUNDS.value):
        for name, (library, _) in cases.items():
            time.sleep(0.3)  # the other library's threads spin for a while before they sleep
            seconds[name].append(workers[library].ask(time=name))
        print(f"round {turn + 1} of {_ROUNDS.value}", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.close()
    return {name: {"first_call": first[name], "seconds": seconds[name]} for name in cases}


def _compile_times(dtype: str) -> dict[str, dict]:
    """Cold, and with the persistent cache that the cold start filled."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "benchmarks.forward_compile", "4", dtype, cache]
        return {
            name: json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
            for name in ("cold", "cached")
        }


def _rows(dtype: str, measured: dict[str, dict]) -> list[dict]:
    median = {name: statistics.median(m["seconds"]) for name, m in measured.items()}
    products = {k: 2 * _PRODUCT.value**3 / median[f"{k} product"] for k in ("jax", "torch")}
    plain = max(products.values())
    rows = [
        {"dtype": dtype, "case": f"{k} product", "rate": rate, "share": rate / plain}
        for k, rate in products.items()
    ]
    for name, m in measured.items():
        if name.endswith("product"):
            continue
        batch = int(name.rpartition(" ")[2])
        rate = batch * FLOP_PER_EXAMPLE / median[name]
        row = {"dtype": dtype, "case": name, "seconds_per_example": median[name] / batch}
        rows.append(row | {"rate": rate, "share": rate / plain, "first_call": m["first_call"]})
    return rows


def _table(rows: list[dict]) -> str:
    lines = [
        "| type | case | ms an example | GFLOP/s | share of a plain product | first call, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        each = f"{1e3 * row['seconds_per_example']:.0f}" if "seconds_per_example" in row else ""
        first = f"{row['first_call']:.1f}" if "first_call" in row else ""
        cells = (row["dtype"], row["case"], each, f"{row['rate'] / 1e9:.0f}", f"{row['share']:.0%}")
        lines.append(f"| {' | '.join([*cells, first])} |")
    return "\n".join(lines)


def _verdict(rows: list[dict]) -> list[str]:
    said = []
    for dtype in _DTYPES.value:
        timed = [r for r in rows if r["dtype"] == dtype and "seconds_per_example" in r]
        best = {
            library: min(
                (r for r in timed if r["case"].startswith(library)),
                key=lambda r: r["seconds_per_example"],
            )
            for library in ("jax", "torch")
        }
        ratio = best["torch"]["seconds_per_example"] / best["jax"]["seconds_per_example"]
        ours, theirs = best["jax"]["case"], best["torch"]["case"]
        said.append(f"{dtype}: the speed of {ours} is {ratio:.2f} × that of {theirs}")
    return said


def main(argv: list[str]) -> None:
    """Measures, prints the table and writes the result."""
    del argv
    machine = hardware.describe()
    compile_times = {dtype: _compile_times(dtype) for dtype in _DTYPES.value}
    measured = {dtype: _measure(dtype) for dtype in _DTYPES.value}
    rows = [row for dtype in _DTYPES.value for row in _rows(dtype, measured[dtype])]
    print(_table(rows))
    for dtype, times in compile_times.items():
        for start, t in times.items():
            parts = ", ".join(f"{k} {v:.1f} s" for k, v in t.items())
            print(f"{dtype}, {start} start at batch 4: {parts}")
    verdict = _verdict(rows)
    print("\n".join(verdict))
    result = {"machine": machine, "rounds": _ROUNDS.value, "rows": rows, "verdict": verdict}
    result |= {"compile": compile_times, "measured": measured}
    Path(_OUT.value).write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {_OUT.value}")


if __name__ == "__main__":
    app.run(main)
