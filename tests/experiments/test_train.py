"""A model is trained from a folder of audio, generates, and goes on where it was killed."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from experiments import generate, train
from tda_jax.corpus import dataset
from tda_jax.corpus.arrays import read_queries
from tda_jax.errors import InputError
from tda_jax.models.pretrained import load_pipeline
from tests.experiments.cards import ROOT, card

pytestmark = pytest.mark.slow  # a minute of compiling; `.ci/run` runs the demo, which trains
RATE = 16000
SAID = ("low tone", "high tone", "two tones")


SHRUNK = {
    "seconds": 0.64,
    "every": 4,
    "sizes.vae": (8, 8, 16),
    "sizes.latent": 4,
    "sizes.unet": (8, 16),
    "sizes.text": 16,
    "sizes.layers": 1,
    "sizes.tokens": 8,
    "vae.steps": 10,
    "vae.batch": 4,
    "vae.crop": 32,
    "text.steps": 10,
    "text.batch": 6,
    "denoiser.steps": 10,
    "denoiser.batch": 4,
}


def training(audio, workdir, **changes):
    folders = {"audio": str(audio), "workdir": str(workdir)}
    return card("train", **(SHRUNK | folders | changes))


def silent(*_):
    pass


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("audio"), []
    for i in range(8):
        t = np.arange(round((0.8 if i else 0.4) * RATE)) / RATE
        wave = 0.3 * np.sin(2 * np.pi * (200 + 90 * i) * t) * np.exp(-t)
        soundfile.write(folder / f"{i}.wav", wave, RATE)
        split = "held_out" if i > 5 else "train"
        lines.append({"file_name": f"{i}.wav", "caption": SAID[i % 3], "split": split})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module", params=["text", pytest.param("class", marks=pytest.mark.slow)])
def finished(request, audio, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(request.param)
    return workdir, train.run(training(audio, workdir, kind=request.param), silent), request.param


def test_a_whole_pipeline_is_there_and_generates(finished, tmp_path):
    workdir, summary, kind = finished
    assert set(summary["parts"]) == {"vae", "text", "denoiser"}
    assert summary["tracks"] == 6
    made = load_pipeline(workdir / "model")
    assert set(made.components) == {"vae", "text_encoder", "unet"}
    assert made.schedule.config["beta_end"] == 0.0195
    rows = list(dataset.read_rows(workdir / "encoded" / "dataset"))
    assert sum(r.member for r in rows) == 6
    latents = np.stack([r.mean for r in rows if r.member])
    spread = latents.var() + np.mean([np.square(r.std).mean() for r in rows if r.member])
    assert spread == pytest.approx(1.0, rel=0.02)  # what the scaling factor is for
    asked = {"model": str(workdir / "model"), "workdir": str(tmp_path), "seconds": 0.64}
    generate.run(card("generate", prompts="low tone", steps=2, **asked), silent)
    queries = read_queries(tmp_path / "queries")
    assert queries.examples.latent.shape == (1, *rows[0].mean.shape)
    assert (queries.examples.condition.text is not None) == (kind == "text")


def test_a_second_run_trains_nothing(finished, audio):
    workdir, summary, kind = finished
    before = {p: p.stat().st_mtime_ns for p in (workdir / "model").rglob("*") if p.is_file()}
    again = train.run(training(audio, workdir, kind=kind), silent)
    assert again["parts"] == summary["parts"]
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_other_settings_or_other_music_are_refused(finished, audio, tmp_path):
    workdir, _, kind = finished
    with pytest.raises(InputError, match=r"made from something else: .*seed is 0 there and 1 here"):
        train.run(training(audio, workdir, kind=kind, seed=1), silent)
    other = tmp_path / "audio"
    shutil.copytree(audio, other)
    soundfile.write(other / "0.wav", np.sin(np.arange(9000) / 9), RATE)
    with pytest.raises(InputError, match="made from something else: audio is"):
        train.run(training(other, workdir, kind=kind), silent)


def test_a_killed_run_goes_on_to_the_same_weights(finished, audio, tmp_path):
    workdir, _, kind = finished
    command = [sys.executable, "-m", "experiments.train", f"--config.audio={audio}"]
    command += [f"--config.workdir={tmp_path}", f"--config.kind={kind}"]
    for name, value in SHRUNK.items():
        command.append(f"--config.{name}={value}")
    for stage in ("vae", "text", "denoiser"):
        child = subprocess.Popen(command, cwd=ROOT)
        while not (tmp_path / "checkpoints" / stage / "4").exists():
            assert child.poll() is None
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
    train.run(training(audio, tmp_path, kind=kind), silent)
    for part in ("vae", "text_encoder", "unet"):
        one, two = (
            next((folder / "model" / part).glob("*.safetensors")).read_bytes()
            for folder in (workdir, tmp_path)
        )
        assert one == two, part


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "both"}, "kind = 'both'"),
        ({"sizes.unet": (8, 12)}, "two multiples of 8"),
        ({"vae.crop": 30}, "crop = 30 frames; give a multiple of 4"),
        ({"seconds": 0.65}, "seconds = 0.65 are 65 frames"),
        ({"text.steps": 0}, "text.steps = 0"),
        ({"denoiser.dropout": 2.0}, "dropout = 2.0"),
    ],
)
def test_a_card_that_cannot_be_run_is_refused(audio, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train.run(training(audio, tmp_path, **changes), silent)


def test_a_folder_without_anything_to_train_on_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.ones(100), RATE)
    line = {"file_name": "a.wav", "caption": "x", "split": "test"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line))
    with pytest.raises(InputError, match="no track has the split 'train'"):
        train.run(training(tmp_path, tmp_path / "w"), silent)
