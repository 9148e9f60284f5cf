"""Generated pieces: what is kept of them, and that they are a function of id, prompt and seed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments import generate
from tda_jax.corpus.arrays import read_queries
from tda_jax.errors import InputError
from tests.experiments import pipelines

ROOT = Path(__file__).parent.parent.parent
SAID = ("slow piano", "fast drums", "a slow drone")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "pipeline"
    pipelines.write(folder, SAID)
    return folder


def card(folder, workdir, **changes):
    spec = importlib.util.spec_from_file_location("card", ROOT / "configs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    given = {"model": str(folder), "workdir": str(workdir), "seconds": 0.64, "steps": 3}
    for name, value in ({"prompts": "slow piano; fast drums"} | given | changes).items():
        config[name] = value
    return config


def silent(*_):
    pass


def pieces(model, workdir, **changes):
    generate.run(card(model, workdir, **changes), silent)
    return read_queries(workdir / "queries")


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pieces")
    return workdir, pieces(model, workdir)


def test_latents_come_with_what_they_were_made_by(finished):
    _, found = finished
    assert found.ids == ("piece 001", "piece 002")
    assert found.examples.latent.shape == (2, 16, 16, 8)
    assert found.examples.condition.text.shape[:2] == (2, pipelines.TOKENS)
    assert found.metadata[1] == {
        "prompt": "fast drums",
        "negative": "",
        "sampler": "dpm",
        "steps": 3,
        "guidance": 2.5,
        "seed": 0,
    }


def test_audio_is_written_beside_them(finished):
    workdir, _ = finished
    for name in ("piece 001", "piece 002"):
        wave, rate = soundfile.read(workdir / "audio" / f"{name}.wav")
        assert rate == 16000
        assert len(wave) == 64 * 160
        assert np.abs(wave).max() == pytest.approx(0.9, abs=1e-3)
    said = json.loads((workdir / "summary.json").read_text())
    assert [p["prompt"] for p in said["pieces"]] == ["slow piano", "fast drums"]


@pytest.mark.slow
def test_a_piece_does_not_depend_on_those_beside_it(finished, model, tmp_path):
    one_by_one = pieces(model, tmp_path, batch=1, prompts='["slow piano", "fast drums", "x"]')
    np.testing.assert_allclose(
        one_by_one.examples.latent[:2], finished[1].examples.latent, rtol=0, atol=2e-4
    )


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"guidance": 1.0}, {"sampler": "ddim"}, {"negative": "drone"}],
    ids=str,
)
def test_every_setting_changes_the_latents(finished, model, tmp_path, changes):
    other = pieces(model, tmp_path, **changes)
    assert np.abs(other.examples.latent - finished[1].examples.latent).max() > 1e-3


def test_a_second_run_makes_nothing_and_another_is_refused(finished, model, monkeypatch):
    workdir, _ = finished
    monkeypatch.setattr(generate, "generate", None)
    again = generate.run(card(model, workdir), silent)
    assert len(again["pieces"]) == 2
    with pytest.raises(
        InputError, match=r"made from something else: guidance is 2.5 there and 3.0"
    ):
        generate.run(card(model, workdir, guidance=3.0), silent)


@pytest.mark.slow
def test_a_killed_run_samples_no_batch_again_and_takes_another_size(
    finished, model, tmp_path, monkeypatch
):
    sample, made = generate.generate, []

    def until_killed(*given):
        if made:
            raise KeyboardInterrupt
        made.append(given[3])
        return sample(*given)

    monkeypatch.setattr(generate, "generate", until_killed)
    with pytest.raises(KeyboardInterrupt):
        pieces(model, tmp_path, batch=1)
    assert not (tmp_path / "queries").exists()
    monkeypatch.setattr(generate, "generate", lambda *g: made.append(g[3]) or sample(*g))
    found = pieces(model, tmp_path, batch=1)
    assert made == [["piece 001"], ["piece 002"]]
    np.testing.assert_allclose(
        found.examples.latent, finished[1].examples.latent, rtol=0, atol=2e-4
    )
    (tmp_path / "summary.json").unlink()
    pieces(model, tmp_path, batch=2)
    assert made[2:] == [["piece 001", "piece 002"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, "no model is given"),
        ({"prompts": " ; "}, "give one at least"),
        ({"prompts": "[1]"}, "prompts: 1 is no text"),
        ({"prompts": "[a"}, "is no JSON list"),
        ({"sampler": "euler"}, "sampler = 'euler'; choose one of"),
        ({"guidance": 0.5}, "guidance = 0.5; give 1 for none"),
        ({"steps": 0}, "steps = 0"),
        ({"seconds": 0.65}, "seconds = 0.65; give a multiple of 0.04"),
        ({"batch": 0}, "batch = 0"),
    ],
)
def test_a_card_that_cannot_be_run_is_refused(model, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        generate.run(card(model, tmp_path, **changes), silent)
