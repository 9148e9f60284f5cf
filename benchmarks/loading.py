"""Start of a checkpoint: seconds and peak memory, from torch weights and from the converted copy.

    python -m benchmarks.loading --folder=FOLDER --out=benchmarks/results/loading-cpu.json

FOLDER is one component, such as `unet`; without it, a full AudioLDM-s UNet with random weights is
made in a scratch folder. Peak memory is the growth of resident memory over the load (imports do
not count), in a process of its own, divided by the size of the checkpoint.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags

from benchmarks import hardware

_FOLDER = flags.DEFINE_string("folder", None, "A component's folder.")
_OUT = flags.DEFINE_string("out", None, "JSON file for the result.", required=True)

_PROGRAM = """
import json, sys, time
from pathlib import Path
import jax
from tda_jax.models import pretrained
jax.block_until_ready(jax.numpy.zeros(1))

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

before = resident()
start = time.perf_counter()
component = pretrained.load_component(sys.argv[1], cache=sys.argv[2] or None)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "peak": peak() - before, "before": before}))
"""


def load_once(folder: Path, cache: str = "") -> dict[str, float]:
    """Seconds, bytes of growth at the peak and bytes before, of a load in a fresh process."""
    command = [sys.executable, "-c", _PROGRAM, str(folder), cache]
    return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])


def _random_unet(folder: Path) -> Path:
    from benchmarks.forward_jax import arguments
    from benchmarks.forward_setting import CONFIG
    from tda_jax.models.export import save_component
    from tda_jax.models.pretrained import Component, Record

    config = {"_class_name": "UNet2DConditionModel", **CONFIG}
    params = arguments(1, "float32")[0]
    record = Record("UNet2DConditionModel", "unet", "raw", 0, "", ())
    save_component(folder, Component(None, params, {}, config, record))
    return folder


def main(argv: list[str]) -> None:
    """Measures, prints and writes the result."""
    del argv
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(_FOLDER.value) if _FOLDER.value else _random_unet(Path(scratch) / "unet")
        files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
        size = sum(file.stat().st_size for file in files)
        cache = str(Path(scratch) / "cache")
        result = {"machine": hardware.describe(), "folder": folder.name, "bytes": size}
        starts = ("torch weights", ""), ("first with a cache", cache), ("converted copy", cache)
        for name, where in starts:
            load_once(folder, where) if name == "torch weights" else None  # the file's pages
            result[name] = load_once(folder, where)
            share = result[name]["peak"] / size
            print(
                f"{name:<20} {result[name]['seconds']:6.2f} s   peak {share:.2f} × the checkpoint"
            )
    Path(_OUT.value).write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {_OUT.value}")


if __name__ == "__main__":
    app.run(main)
