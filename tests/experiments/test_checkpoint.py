"""The entry point on its default card, and on a folder that it wrote itself."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from experiments import checkpoint

ROOT = Path(__file__).parent.parent.parent


def card():
    spec = importlib.util.spec_from_file_location("card", ROOT / "configs" / "checkpoint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def test_the_default_card_makes_a_pipeline_and_describes_it(tmp_path, capsys):
    config = card()
    config.workdir, config.export = str(tmp_path), str(tmp_path / "copy")
    first = checkpoint.run(config)
    said = capsys.readouterr().out
    for name, component in first.components.items():
        tensors = len(jax.tree.leaves(component.params))
        assert component.record.tensors == tensors
        assert any(
            line.startswith(name) and f"{tensors} tensors, each used once" in line
            for line in said.splitlines()
        )
    assert "group self_attention" in said

    config = card()
    config.folder = str(tmp_path / "copy")
    second = checkpoint.run(config)
    for name, component in first.components.items():
        jax.tree.map(
            np.testing.assert_array_equal, component.params, second.components[name].params
        )


def test_an_error_is_one_line_that_names_the_file(tmp_path):
    command = [sys.executable, "-m", "experiments.checkpoint", f"--config.folder={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert str(tmp_path / "model_index.json") in line
    assert "Traceback" not in done.stderr
