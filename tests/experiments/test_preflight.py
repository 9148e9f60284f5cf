"""Preflight on an encoded folder, and what is refused where parts do not belong together."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from experiments import attribute_inputs as inputs
from experiments import encode_corpus, generate, preflight
from tda_jax.errors import InputError
from tda_jax.evaluation import preflight as checks
from tests.experiments import pipelines
from tests.experiments.cards import card

RATE = 16000
SAID = ("slow piano", "fast drums", "a slow drone")


def silent(*_):
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a pipeline, another with other weights, encoded audio and generated pieces."""
    folder = tmp_path_factory.mktemp("preflight")
    pipelines.write(folder / "model", SAID)
    (folder / "audio").mkdir()
    lines = []
    for i in range(8):
        wave = 0.3 * np.sin(np.arange(RATE * (1 if i else 0.4)) * (0.05 + 0.02 * i))
        soundfile.write(folder / "audio" / f"{i}.wav", wave, RATE)
        split = "held_out" if i > 4 else "train"
        lines.append({"file_name": f"{i}.wav", "caption": SAID[i % 3], "split": split})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "audio" / "metadata.jsonl").write_text(text)
    given = {"model": str(folder / "model"), "seconds": 0.64}
    encoded = {"audio": str(folder / "audio"), "workdir": str(folder / "encoded")}
    encode_corpus.run(card("encode_corpus", **given, **encoded), silent)
    asked = {"prompts": "slow piano", "steps": 2, "workdir": str(folder / "generated")}
    generate.run(card("generate", **given, **asked), silent)
    return folder


def changed(made, target, part):
    """A copy of the model whose part has another weight."""
    shutil.copytree(made / "model", target)
    (path,) = (target / part).glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-4:] = np.float32(0.123).tobytes()
    path.write_bytes(bytes(data))
    return target


def asked(made, workdir, **changes):
    given = {"model": str(made / "model"), "corpus": str(made / "encoded" / "dataset")}
    small = {"strata": 2, "batch": 4, "workdir": str(workdir)}
    return card("preflight", **(given | small | changes))


@pytest.fixture(scope="module")
def ran(made):
    return made / "preflight", preflight.run(asked(made, made / "preflight"), silent)


def test_every_check_is_there_with_a_sound_to_listen_to(ran):
    workdir, found = ran
    assert json.loads((workdir / "preflight.json").read_text()) == found
    assert len(found["checks"]) == 6
    assert found["tracks"] == 8
    by_name = {c["name"]: c for c in found["checks"]}
    assert by_name["the checkpoint denoises these latents"]["passed"] is False  # random weights
    assert not found["passed"]
    wave, rate = soundfile.read(workdir / "sample.wav")
    assert (len(wave), rate) == (64 * 160, RATE)


def test_it_is_not_done_again_unless_something_changed(ran, made, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "losses", lambda *_: pytest.fail("swept again"))
    assert preflight.run(asked(made, ran[0]), silent) == ran[1]
    other = changed(made, tmp_path / "unet", "unet")
    with pytest.raises(InputError, match="made from something else: checkpoint is"):
        preflight.run(asked(made, ran[0], model=str(other)), silent)


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_a_corpus_of_another_model_is_refused_before_any_work(made, tmp_path, monkeypatch, part):
    monkeypatch.setattr(checks, "losses", lambda *_: pytest.fail("swept"))
    other = changed(made, tmp_path / "model", part)
    with pytest.raises(InputError, match=f"dataset: was made with another {part} than"):
        preflight.run(asked(made, tmp_path / "out", model=str(other)), silent)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "unet"])
def test_pieces_of_another_model_are_refused(made, tmp_path, part):
    other = changed(made, tmp_path / "model", part)
    given = {"queries": str(made / "generated" / "queries"), "corpus": ""}
    config = card("arrays", **given, model=str(made / "model"))
    assert inputs.load_model(config).params
    with pytest.raises(InputError, match=f"queries: was made with another {part} than"):
        inputs.load_model(card("arrays", **given, model=str(other)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, "no model is given"),
        ({"corpus": ""}, "no corpus is given"),
        ({"tracks": 1}, "tracks = 1; give 2 at least"),
        ({"strata": 0}, "strata = 0; give 1 at least"),
    ],
)
def test_a_card_that_cannot_be_run_is_refused(made, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        preflight.run(asked(made, tmp_path, **changes), silent)
