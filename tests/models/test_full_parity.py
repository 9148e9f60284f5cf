"""Parity of the published architectures at full size; torch runs in a process of its own."""

import subprocess
import sys

import numpy as np
import pytest

from tda_jax.models.pretrained import load_component
from tests.models import cases, checkpoints, compare, flax_side, golden

pytestmark = [pytest.mark.slow, pytest.mark.parity]

RUNS = {
    "audioldm_s": ("gradients", "samples"),
    "sd15": ("gradients",),
    "audioldm_vae": (),
    "sd_vae": (),
    "hifigan_16k": (),
    "clip_l": ("gradients",),
    "clap_roberta": ("gradients",),
}


@pytest.mark.parametrize("name", RUNS)
def test_full_models_equal_torch(name, tmp_path):
    case, wanted = cases.FULL[name], RUNS[name]
    folder, out = golden.checkpoint(tmp_path / "model", name), tmp_path / "torch.npz"
    command = [sys.executable, "-m", "tests.models.torch_side", folder, name, out, *wanted]
    subprocess.run([str(part) for part in command], check=True)
    component = load_component(folder)
    assert component.record.tensors == cases.FULL_COUNTS[name][0]
    ours = compare.sketched(flax_side.run(component, checkpoints.inputs(case), wanted))
    with np.load(out) as theirs:
        print(name, compare.assert_parity(ours, dict(theirs)))
