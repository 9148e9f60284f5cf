"""Says before hours are spent whether checkpoint, corpus, scaling and conditions fit each other.

python -m experiments.preflight --config=configs/preflight.py --config.model=FOLDER
    --config.corpus=FOLDER --config.workdir=DIR
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from configs.preflight import get_config
from experiments import attribute_inputs as inputs
from experiments import cards
from experiments.progress import Bars, Clock, Progress
from tda_jax import devices, examples, fingerprint, keys
from tda_jax.artifact import claim, whole_file
from tda_jax.attribution.units import tracks_of
from tda_jax.audio.mel import MelSettings
from tda_jax.corpus.decoding import decoder, write_wave
from tda_jax.errors import InputError
from tda_jax.evaluation import preflight
from tda_jax.examples import Corpus
from tda_jax.models.folders import read_json
from tda_jax.models.pretrained import Pipeline, load_pipeline

_DECODED = 8  # tracks whose latents are decoded


def run(config: ConfigDict, progress: Progress) -> dict[str, Any]:
    """Runs a card: chooses tracks, sweeps them, decodes one, and writes the verdict.

    Args:
        config: as `configs/preflight.py` gives it.
        progress: told of tracks done.

    Returns:
        What `preflight.json` holds.

    Raises:
        InputError: something given cannot be used, before any work.
    """
    refuse(config)
    clock, workdir = Clock(progress), Path(config.workdir)
    path = workdir / "preflight.json"
    corpus = inputs.read_corpus(config, inputs.unet_config(config))
    model = inputs.load_model(config)
    names = ("tracks", "strata", "seed")
    source = {name: config[name] for name in names} | {"checkpoint": model.fingerprint}
    source |= {"corpus": examples.corpus_fingerprint(corpus), "versions": fingerprint.versions()}
    pipeline = _decoding(config)
    heard = inputs.log_mels(Path(config.corpus))
    source |= {name: c.record.fingerprint for name, c in pipeline.components.items()}
    source["heard"] = fingerprint.of_text(*(fingerprint.of_array(heard[k]) for k in sorted(heard)))
    source["code"] = fingerprint.of_code("tda_jax.evaluation.preflight", "tda_jax.corpus.decoding")
    claim(workdir / "made_of.json", source, "Give another --config.workdir, or delete that folder")
    if path.exists():
        content = read_json(path)
        _say(content, path)
        return content
    some = preflight.chosen(corpus, tracks_of(corpus), config.tracks, config.seed)
    clock("decoding", 0, 1)
    decoded = _decoded(pipeline, some, workdir / "sample.wav")
    clock("decoding", 1, 1)
    used = devices.local_devices(config.devices or None)
    found = preflight.losses(
        model, some, keys.Draws(1, config.strata), config.seed, config.batch, used, clock
    )
    known = [heard[name] for name in some.ids[: len(decoded)] if name in heard]
    complete = known if len(known) == len(decoded) else []
    checks = preflight.checks(some, found, decoded, complete)
    content = dict(preflight.as_json(checks))
    content |= {"sample": some.ids[0] if decoded else None}
    content |= {"tracks": len(some.ids), "seconds": clock.seconds()}
    with whole_file(path) as part:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
    _say(content, path)
    return content


def refuse(config: ConfigDict) -> None:
    """Refuses a card that cannot be run, whatever the folders hold.

    Raises:
        InputError: names the setting.
    """
    cards.refuse_keys(config, get_config(), "configs/preflight.py")
    for name in ("model", "corpus"):
        if not config[name]:
            raise InputError(f"no {name} is given; give --config.{name}=FOLDER")
    for name, least in (("tracks", 2), ("strata", 1), ("batch", 1)):
        if config[name] < least:
            raise InputError(f"{name} = {config[name]}; give {least} at least")


def _decoding(config: ConfigDict) -> Pipeline:
    """The VAE and the vocoder of the model's folder, where it has them."""
    index = read_json(Path(config.model) / "model_index.json")
    # Absent, null or [null, null] where a pipeline has none.
    parts = [name for name in ("vae", "vocoder") if (index.get(name) or [None])[-1] is not None]
    return load_pipeline(config.model, tuple(parts), cache=config.cache or None)


def _decoded(
    pipeline: Pipeline, corpus: Corpus, path: Path
) -> list[Float[np.ndarray, "frames mels"]]:
    """Log-mels of the first tracks by the VAE, valid frames only; the first goes to a file.

    Nothing where there is no VAE of log-mels. What is not finite has no sound.
    """
    if "vae" not in pipeline.components:
        return []
    made, found = decoder(pipeline), []
    for i in range(min(_DECODED, len(corpus.ids))):
        mel = made.log_mel(corpus.examples.latent[i])
        if "vocoder" not in pipeline.components and mel.shape[1] != MelSettings().mels:
            return []
        if i == 0 and np.isfinite(mel).all():
            write_wave(path, made.wave(mel), made.rate)
        # Latent frame t stands for `factor` mel frames.
        factor = len(mel) // corpus.examples.mask.shape[1]
        found.append(mel[: int(np.asarray(corpus.examples.mask[i]).sum()) * factor])
    return found


def _say(content: Mapping[str, Any], path: Path) -> None:
    marks = {True: "ok    ", False: "FAILED", None: "open  "}
    for check in content["checks"]:
        print(f"{marks[check['passed']]} {check['name']}: {check['says']}")
    print(f"{content['verdict']} wrote {path}")


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress; a check that failed ends it with status 1."""
    with Bars() as bars:
        content = run(config, bars)
    if not content["passed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    cards.start(main, "configs/preflight.py")
