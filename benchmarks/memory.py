"""Memory of Fisher, sweep and linearised passes: predicted before the run, and then measured.

    python -m benchmarks.memory --out=benchmarks/results/memory-cpu.json

Each pass runs in a process of its own, on the full AudioLDM-s UNet. Predicted is what
`tda_jax.attribution.memory` reads off the compiled program. Measured is, on a CPU, the highest
resident memory of the process during the pass less what it held before any array was made; on an
accelerator, the device's own count of its peak.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
from absl import app, flags

from benchmarks import hardware
from benchmarks.sweep_jax import model, track
from benchmarks.sweep_setting import SETTINGS
from tda_jax import devices, keys
from tda_jax.attribution import fisher, linearised, memory, prepare, sweep
from tda_jax.attribution.contract import split_group

PASSES = ("fisher", "sweep", "linearised")
_OUT = flags.DEFINE_string("out", None, "JSON file for the result.")
_SETTING = flags.DEFINE_string("setting", "audioldm_s", "Which UNet.")
_BATCHES = flags.DEFINE_list("batches", ["2", "4", "8"], "(track, draw) pairs at a time.")
_CHILD = flags.DEFINE_string("child", None, "Internal: one pass, measured in this process.")


def _status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def _settle() -> None:
    """Gives freed memory back to the system, and starts the highest value anew."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def measure(setting: str, kind: str, batch: int) -> dict[str, float]:
    """Predicts a pass over two tracks, runs it, and reads what it took; for a fresh process."""
    # The prediction compiles, the run then finds the program: compiling is no part of the peak.
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    cpu = jax.default_backend() == "cpu"
    jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))
    before = _status("VmRSS")
    made, used = model(setting), devices.local_devices(1)
    moved, rest = devices.replicate(split_group(made, SETTINGS[setting].group), used)
    examples, ids = track(setting, 2)
    plan = keys.Draws(1, max(batch, 4))
    if kind == "fisher":
        run = fisher.make_fisher(made, plan.count, 0, batch, used)
        placed = fisher.place(run, moved, rest)
        need = memory.of_fisher(run, placed, moved, examples)
        _settle()
        fisher.add(run, fisher.start(run, moved), placed, examples, ids)
    elif kind == "sweep":
        run = sweep.make_sweep(made, plan, 0, batch, used)
        placed = sweep.place(run, moved, rest)
        need = memory.of_sweep(run, placed, moved, examples)
        _settle()
        step = sweep.place_step(run, prepare.no_step(moved))
        sweep.losses(run, placed, step, examples, ids)
    else:
        run = linearised.make_linearised(made, plan, 0, batch, used)
        placed = linearised.place(run, moved, rest)
        need = memory.of_linearised(run, placed, moved, 1, 2, examples)
        _settle()
        nothing = jax.tree.map(lambda x: jax.numpy.zeros((1, 2, *x.shape)), moved)
        linearised.expand(run, placed, devices.replicate(nothing, used), examples, ids)
    peak = _status("VmHWM") - before if cpu else used[0].memory_stats()["peak_bytes_in_use"]
    return {"predicted": need.peak, "measured": peak, "ratio": need.peak / peak}


def main(argv: list[str]) -> None:
    """Measures each pass in a process of its own, prints a table and writes the result."""
    del argv
    if _CHILD.value:
        kind, batch = _CHILD.value.split(":")
        print(json.dumps(measure(_SETTING.value, kind, int(batch))))
        return
    rows = []
    for kind in PASSES:
        for batch in _BATCHES.value:
            command = [sys.executable, "-m", "benchmarks.memory", f"--child={kind}:{batch}"]
            command.append(f"--setting={_SETTING.value}")
            out = subprocess.check_output(command, text=True).splitlines()[-1]
            rows.append({"pass": kind, "batch": int(batch)} | json.loads(out))
            print(
                "{pass} batch {batch}: predicted {predicted:.3g}, measured {measured:.3g}".format(
                    **rows[-1]
                )
            )
    worst = max(abs(row["ratio"] - 1) for row in rows)
    print(f"{_SETTING.value}: predictions are within {worst:.0%} of what was measured")
    if _OUT.value:
        result = {"machine": hardware.describe(), "setting": _SETTING.value, "rows": rows}
        Path(_OUT.value).write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {_OUT.value}")


if __name__ == "__main__":
    app.run(main)
