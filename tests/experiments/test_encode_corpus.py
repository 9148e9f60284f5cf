"""The entry point that encodes: from a folder of audio to a dataset, and to scores."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments import encode_corpus
from tda_jax.corpus import dataset
from tda_jax.errors import InputError
from tests.experiments import pipelines

ROOT = Path(__file__).parent.parent.parent
RATE = 16000
SAID = ("slow piano", "fast drums", "a slow drone")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A diffusers folder with a VAE for spectrograms, a text encoder and its tokenizer."""
    folder = tmp_path_factory.mktemp("model") / "pipeline"
    pipelines.write(folder, SAID)
    return folder


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    lines = []
    for i, seconds in enumerate((0.7, 0.4, 1.4)):
        soundfile.write(folder / f"{i}.flac", 0.2 * rng.standard_normal(int(seconds * RATE)), RATE)
        split = "held_out" if i == 2 else "train"
        lines.append({"file_name": f"{i}.flac", "caption": SAID[i], "split": split, "title": "T"})
    (folder / "broken.mp3").write_bytes(b"no music")
    lines.append({"file_name": "broken.mp3", "caption": SAID[0]})
    lines.append({"file_name": "gone.wav", "caption": SAID[0]})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def card(folders, workdir, **changes):
    spec = importlib.util.spec_from_file_location("card", ROOT / "configs" / "encode_corpus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    given = {**folders, "workdir": str(workdir), "seconds": 0.64}
    for name, value in (given | changes).items():
        config[name] = value
    return config


@pytest.fixture(scope="module")
def folders(model, audio):
    return {"model": str(model), "audio": str(audio)}


def silent(*_):
    pass


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("encoded")
    return workdir, encode_corpus.run(card(folders, workdir, windows=0), silent)


def test_every_window_is_in_the_dataset_with_its_condition(finished):
    workdir, summary = finished
    rows = list(dataset.read_rows(workdir / "dataset"))
    assert [r.id for r in rows] == ["0", "1", "2 at 0 s", "2 at 0.64 s"]
    assert [r.member for r in rows] == [True, True, False, False]
    assert rows[0].mean.shape == (16, 16, 8)
    assert rows[0].condition.text.shape[:2] == (1, 9)
    np.testing.assert_array_equal(rows[2].condition.text, rows[3].condition.text)
    assert np.abs(rows[0].condition.text - rows[1].condition.text).max() > 1e-3
    assert (rows[0].frames, rows[1].frames < 16) == (16, True)
    assert {k: summary[k] for k in ("tracks", "decoys", "windows", "captions")} == {
        "tracks": 2,
        "decoys": 1,
        "windows": 4,
        "captions": 3,
    }
    assert json.loads((workdir / "summary.json").read_text())["windows"] == 4


def test_what_cannot_be_used_is_listed_with_its_reason(finished):
    reasons = {s["file"]: s["reason"] for s in finished[1]["skipped"]}
    assert set(reasons) == {"broken.mp3", "gone.wav"}
    assert "broken.mp3" in reasons["broken.mp3"]


def test_how_files_are_grouped_is_no_part_of_what_a_dataset_is(finished, folders):
    workdir, summary = finished
    again = encode_corpus.run(card(folders, workdir, windows=0, chunk=2), silent)
    assert again["made_of"] == summary["made_of"]


def test_a_second_run_finds_all_there(finished, folders):
    workdir, summary = finished
    again = encode_corpus.run(card(folders, workdir, windows=0), silent)
    assert again["made_of"] == summary["made_of"]
    with pytest.raises(InputError, match=r"made from something else: .*windows"):
        encode_corpus.run(card(folders, workdir, windows=1), silent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": ""}, "no audio is given; give --config.audio=FOLDER"),
        ({"model": ""}, "no model is given"),
        ({"batch": 0}, "batch = 0; give 1"),
        ({"windows": -1}, "windows = -1"),
        ({"seconds": 0.65}, "which the VAE's factor of 4 does not divide"),
        ({"tokens": 2}, "2"),
    ],
)
def test_a_card_that_cannot_be_run_is_refused(folders, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        encode_corpus.run(card(folders, tmp_path / "x", **changes), silent)
    assert not (tmp_path / "x" / "dataset").exists()


def test_an_error_on_the_command_line_is_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.encode_corpus", f"--config.audio={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line == "error: no model is given; give --config.model=FOLDER"
