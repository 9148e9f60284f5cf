"""Memory of Fisher, sweep and linearised passes: predicted before the run, and then measured.

    python -m benchmarks.memory --out=benchmarks/results/memory-cpu.json

Each pass runs in a process of its own, on the full AudioLDM-s UNet. Predicted is what
`tda_jax.attribution.memory` reads off the compiled program. Measured is, on a CPU, the arrays that
live before the pass and by how much the process grows during it, once the program is compiled and
loaded (which takes memory of its own, and gives it back); on an accelerator, the device's own count
of its peak.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
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


def _grown(run: Callable[[], Any]) -> int:
    """By how many bytes this process grows at most while it runs something."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed memory goes back to the system
    Path("/proc/self/clear_refs").write_text("5")  # the highest value starts anew
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _alive() -> int:
    """Bytes of the arrays that live; several arrays may stand for the same memory."""
    shards = [shard.data for x in jax.live_arrays() for shard in x.addressable_shards]
    return sum({x.unsafe_buffer_pointer(): x.nbytes for x in shards}.values())


def _pass(setting: str, kind: str, batch: int) -> tuple[memory.Need, Callable[[], Any]]:
    """What a pass over two tracks is predicted to need, and the pass."""
    made, used = model(setting), devices.local_devices(1)
    parts = devices.replicate(split_group(made, SETTINGS[setting].group), used)
    examples, ids = track(setting, 2)
    plan = keys.Draws(1, max(batch, 4))
    if kind == "fisher":
        run = fisher.make_fisher(made, plan.count, 0, batch, used)
        placed = fisher.place(run, *parts)
        need = memory.of_fisher(run, placed, parts[0], examples)
        return need, lambda: fisher.add(run, fisher.start(run, parts[0]), placed, examples, ids)
    if kind == "sweep":
        run = sweep.make_sweep(made, plan, 0, batch, used)
        placed = sweep.place(run, *parts)
        need = memory.of_sweep(run, placed, parts[0], examples)
        step = prepare.no_step(parts[0])
        moved = sweep.displaced(run, placed, step)
        return need, lambda: sweep.losses(run, placed, moved, examples, ids)
    run = linearised.make_linearised(made, plan, 0, batch, used)
    placed = linearised.place(run, *parts)
    need = memory.of_linearised(run, placed, parts[0], 1, 2, examples)
    along = {path: np.zeros((2, *x.shape), np.float32) for path, x in parts[0].items()}
    directions = linearised.place_directions(run, [along])
    return need, lambda: linearised.expand(run, placed, directions, examples, ids)


def measure(setting: str, kind: str, batch: int) -> dict[str, float]:
    """Predicts a pass, runs it, and reads what it took; for a fresh process."""
    # The prediction compiles, the run then finds the program.
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    need, run = _pass(setting, kind, batch)
    run()
    if jax.default_backend() == "cpu":
        peak = _alive() + _grown(run)
    else:
        peak = jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
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
