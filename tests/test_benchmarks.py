"""Figures that are promises: what a load may take, at full size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import loading


@pytest.mark.slow
def test_a_load_takes_at_most_1_3_times_the_checkpoint(tmp_path):
    folder = loading._random_unet(tmp_path / "unet")
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert size > 7e8  # AudioLDM-s in float32
    assert loading.load_once(folder)["peak"] <= 1.3 * size


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fisher", "sweep", "linearised"])
def test_memory_is_predicted_within_a_fifth(kind):
    """On the full AudioLDM-s UNet, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", f"--child={kind}:2"]
    root = Path(__file__).parent.parent
    out = subprocess.check_output(command, text=True, cwd=root).splitlines()[-1]
    row = json.loads(out)
    assert row["measured"] > 1e9
    assert abs(row["ratio"] - 1) <= 0.2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """AudioLDM's latents, 0.13 and 0.66 GB: written as a dataset, checked, and swept once."""
    peaks = {}
    for n in (1000, 5000):
        for child in (f"write:{tmp_path}/{n}:{n}", f"read:{tmp_path}/{n}"):
            command = [sys.executable, "-m", "benchmarks.feeding", f"--child={child}"]
            root = Path(__file__).parent.parent
            out = subprocess.check_output(command, text=True, cwd=root).splitlines()[-1]
            peaks[n, child.split(":")[0]] = json.loads(out)["peak_bytes"]
    for work in ("write", "read"):
        assert peaks[5000, work] <= 1.1 * peaks[1000, work], peaks
