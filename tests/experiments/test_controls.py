"""The entry point on its default card, shrunk: with a network of a few parameters, and its own."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import controls
from tda_jax import artifact, params
from tda_jax.errors import InputError
from tda_jax.evaluation import controls_tables
from tda_jax.evaluation.verdicts import FAILS, HOLDS, OPEN
from tests.evaluation import few_parameters

pytestmark = pytest.mark.slow  # a minute of compiling
ROOT = Path(__file__).parent.parent.parent


def card(workdir):
    spec = importlib.util.spec_from_file_location("card", ROOT / "configs" / "controls.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    shrunk = {
        "seeds": (0, 1),
        "works": 3,
        "variants": 2,
        "captions": 2,
        "held_out": 2,
        "updates": (10, 20, 30),
        "batch": 4,
        "queries": 5,
        "groups": ("cross_attention_kv", "transformer", "all"),
        "fisher_draws": 2,
        "query_draws": 16,
        "own_replicates": 2,
        "studied_queries": 1,
        "rises": (0.1, 0.3),
        "draw_counts": (10, 20),
        "query_draw_counts": (4, 8),
        "workdir": str(workdir),
    }
    for name, value in shrunk.items():
        config[name] = value
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's folder, its findings and what it said of its progress."""
    workdir, seen = tmp_path_factory.mktemp("controls"), []
    config = card(workdir)
    found = controls.run(config, lambda *said: seen.append(said), few_parameters.network)
    return workdir, found, seen


def arrays(workdir):
    return {path.relative_to(workdir): path for path in sorted(workdir.rglob("*.safetensors"))}


def test_it_says_of_each_claim_what_became_of_it(finished):
    workdir, found, _ = finished
    text = (workdir / "verdict.md").read_text()
    numbers = [f.number for f in found]
    assert numbers == sorted(numbers, key=lambda n: (int(n.rstrip("abcd")), n))
    for f in found:
        assert f.verdict in (HOLDS, FAILS, OPEN)
        assert f"## {f.number}: {f.verdict}" in text
        assert f.figures
    assert "## Provisional defaults" in text


def test_tables_and_figures_hold_every_group_method_and_step(finished):
    workdir, _, _ = finished
    tables = (workdir / "tables.md").read_text()
    for name, layout in controls_tables.LAYOUTS.items():
        assert f"## {layout.title}\n" in tables
        lines = (workdir / "tables" / f"{name}.csv").read_text().splitlines()
        assert len(lines) > 1, name
    steps = (workdir / "tables" / "steps.csv").read_text()
    for step in ("rise 0.1", "rate 0.0001", "rate 0.001", "rate 0.01"):
        for group in ("cross_attention_kv", "transformer", "all"):
            for method in controls.controls_figures.METHODS:
                assert f"\n{step},{group},{method}," in steps
    for name in ("methods", "steps", "quadratic", "draws", "bins"):
        assert (workdir / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_json_holds_the_plan_and_each_figure_by_seed(finished):
    workdir, found, _ = finished
    result = json.loads((workdir / "controls.json").read_text())
    assert result["plan"]["works"] == 3
    assert [f["verdict"] for f in result["findings"]] == [f.verdict for f in found]
    for row in result["figures"]:
        known = [x for x in row["by_seed"] if x is not None]
        assert len(row["by_seed"]) == 2
        assert row["seeds"] == len(known)
        if known:
            assert row["mean"] == pytest.approx(np.mean(known))


def test_seeds_have_corpora_and_trainings_of_their_own(finished):
    workdir, _, _ = finished
    one, two = (artifact.describe(workdir / f"seed-{s}" / "trained.safetensors")[0] for s in (0, 1))
    assert one["corpus"] != two["corpus"]
    assert one["start"] != two["start"]


def test_progress_is_told_to_its_end(finished):
    _, _, seen = finished
    for stage in ("training", "seed 0, sweeps", "seed 1, sweeps"):
        told = [(done, total) for name, done, total in seen if name == stage]
        assert told[-1][0] == told[-1][1]
        if stage != "training":
            assert told == sorted(told)


def test_a_second_run_computes_nothing_and_says_the_same(finished, monkeypatch):
    workdir, found, _ = finished
    there = {path: path.stat().st_mtime_ns for path in arrays(workdir).values()}
    monkeypatch.setattr(artifact, "save", lambda *_: pytest.fail("something was made again"))
    again = controls.run(card(workdir), lambda *_: None, few_parameters.network)
    assert again == found
    assert {path: path.stat().st_mtime_ns for path in arrays(workdir).values()} == there


def test_what_is_missing_is_made_again_as_it_was(finished):
    workdir, found, _ = finished
    lost = [p for p in arrays(workdir).values() if p.name.startswith(("steps-work00", "fisher-20"))]
    before = {path: artifact_arrays(path) for path in lost}
    assert len(lost) >= 3
    for path in lost:
        path.unlink()
    assert controls.run(card(workdir), lambda *_: None, few_parameters.network) == found
    for path, wanted in before.items():
        for name, x in artifact_arrays(path).items():
            np.testing.assert_array_equal(x, wanted[name])


def artifact_arrays(path):
    return artifact.load(path, artifact.describe(path)[0])[0]


def test_results_of_another_plan_are_refused(finished):
    config = card(finished[0])
    config.learning_rate = 1e-3
    with pytest.raises(InputError, match=r"plan\.learning_rate is 0\.004 there and 0\.001 here"):
        controls.run(config, lambda *_: None, few_parameters.network)


def test_the_levels_are_of_one_training_that_goes_on(finished):
    workdir, _, _ = finished
    levels = artifact_arrays(workdir / "seed-0" / "trained.safetensors")
    start = params.flatten(few_parameters.network(0).params)
    path = "block/attn2/to_v"
    moved = [np.abs(levels[f"{n}|{path}"] - start[path]).max() for n in (10, 20, 30)]
    assert 0 < moved[0] < moved[1] < moved[2]


def test_an_error_is_one_line_before_any_work(tmp_path):
    command = [sys.executable, "-m", "experiments.controls", f"--config.workdir={tmp_path}"]
    command += ["--config.queries=0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("error: queries = 0")]
    assert "Traceback" not in done.stderr
    assert not arrays(tmp_path)


@pytest.mark.slow
def test_its_own_network_goes_through_too(tmp_path):
    config = card(tmp_path)
    config.seeds, config.groups = (0,), ("cross_attention_kv", "self_attention", "transformer")
    found = controls.run(config, lambda *_: None)
    assert len(found) == 24
    assert {f.verdict for f in found} <= {OPEN, FAILS}  # one seed shows nothing
