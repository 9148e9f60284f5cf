"""Retraining many small models: one after the other on a device, mapped, or in one program's loop.

    python -m benchmarks.retraining --out=benchmarks/results/retraining-cpu.json

The model is the small UNet of `evaluation.small_unet` with batches of 16, as a bank of retrained
models has it. Each way runs in a process of its own, since how many devices a CPU is shown as is
decided once; ways take turns, after one call that compiles. On a GPU: --devices=1.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import hardware
from benchmarks.retraining_jax import BATCH, UPDATES
from benchmarks.worker import Worker

_OUT = flags.DEFINE_string("out", None, "JSON file for the result.")
_DEVICES = flags.DEFINE_list("devices", ["1", "2"], "How many devices models are spread over.")
_PER_DEVICE = flags.DEFINE_list("per_device", ["1", "2", "4"], "Models that one trains at a time.")
_LOOP = flags.DEFINE_boolean("loop", True, "Also updates in a loop within one program.")
_TURNS = 5


def main(argv: list[str]) -> None:
    """Measures, prints and writes the result."""
    del argv
    ways = [(int(d), int(p), False) for d in _DEVICES.value for p in _PER_DEVICE.value]
    ways += [(int(_DEVICES.value[0]), 1, True)] * _LOOP.value
    machine, workers = (
        hardware.describe(),
        {way: Worker("benchmarks.retraining_jax") for way in ways},
    )
    compiled = {
        way: w.ask(setup="training", name="one", devices=way[0], per_device=way[1], loop=way[2])
        for way, w in workers.items()
    }
    seconds: dict[Any, list[float]] = {way: [] for way in ways}
    for _ in range(_TURNS):
        for way, worker in workers.items():
            seconds[way].append(worker.ask(time="one"))
    for worker in workers.values():
        worker.close()
    rows = []
    for way in ways:
        devices, per_device, loop = way
        each = statistics.median(seconds[way]) / (UPDATES * devices * per_device)
        row = {"devices": devices, "per_device": per_device, "loop": loop}
        rows.append(row | {"ms_update_of_a_model": 1e3 * each, "first_call_s": compiled[way]})
        how = "in one program's loop" if loop else f"{per_device} mapped on each"
        print(f"{devices} devices, {how}: {1e3 * each:.1f} ms an update of a model")
    result = {"machine": machine, "updates": UPDATES, "batch": BATCH, "ways": rows}
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {_OUT.value}")


if __name__ == "__main__":
    app.run(main)
