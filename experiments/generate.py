"""Generates pieces of music: final latents to attribute, and audio to listen to.

python -m experiments.generate --config=configs/generate.py --config.model=FOLDER
    --config.prompts="slow piano; fast drums" --config.workdir=DIR
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from configs.generate import get_config
from experiments import cards
from experiments.attribute_outputs import write_summary
from experiments.progress import Bars, Clock, Progress
from tda_jax import artifact, examples, fingerprint
from tda_jax.audio.mel import MelSettings, pooled
from tda_jax.corpus.arrays import save_arrays, save_log_mels
from tda_jax.corpus.decoding import decoder, write_wave
from tda_jax.diffusion.generation import Recipe, generate, refuse_recipe
from tda_jax.errors import InputError
from tda_jax.models import captions
from tda_jax.models.denoiser import Condition, predict_fn
from tda_jax.models.folders import SCHEDULER
from tda_jax.models.pretrained import Pipeline, load_pipeline

MADE_OF = "made_of.json"
_PARTS = ("unet", "vae", "text_encoder", SCHEDULER)


def run(config: ConfigDict, progress: Progress) -> dict[str, Any]:
    """Runs a card: samples latents, writes them as queries, decodes and writes audio.

    Args:
        config: as `configs/generate.py` gives it.
        progress: told of pieces done.

    Returns:
        What `summary.json` holds.

    Raises:
        InputError: something given cannot be used, or the folder holds other pieces.
    """
    refuse(config)
    prompts = _prompts(config)
    clock, workdir = Clock(progress), Path(config.workdir)
    pipeline = _load(config)
    _shape(config, pipeline)  # refused before the folder is claimed
    ids = [f"piece {i + 1:03d}" for i in range(len(prompts))]
    source = _source(config, pipeline, prompts)
    path = workdir / "summary.json"
    remedy = f"Give another --config.workdir, or delete {workdir}"
    artifact.claim(workdir / MADE_OF, source, remedy)
    if path.exists():
        print(f"{len(ids)} pieces are there already in {workdir}/")
        return json.loads(path.read_text(encoding="utf-8"))
    queries = _queries(config, pipeline, ids, prompts, source, clock)
    made, heard = decoder(pipeline), []
    for i, name in enumerate(queries.ids):
        clock("decoding", i, len(ids))
        mel = made.log_mel(queries.examples.latent[i])
        heard.append(pooled(mel, len(mel)))
        write_wave(workdir / "audio" / f"{name}.wav", made.wave(mel), made.rate)
    _write_queries(workdir / "queries", queries, np.stack(heard), source)
    clock("decoding", len(ids), len(ids))
    content = {
        "pieces": [
            {
                "id": name,
                "prompt": entry["prompt"],
                "audio": f"audio/{name}.wav",
                "latent": fingerprint.of_array(latent),
            }
            for name, entry, latent in zip(
                queries.ids, queries.metadata, queries.examples.latent, strict=True
            )
        ],
        "made_of": source,
        "seconds": clock.seconds(),
    }
    write_summary(workdir, content)
    print(f"{len(ids)} pieces; wrote {workdir / 'queries'}/, {workdir / 'audio'}/ and {path}")
    return content


def _write_queries(
    folder: Path,
    queries: examples.Corpus,
    heard: Float[np.ndarray, "n 2 mels"],
    source: Mapping[str, Any],
) -> None:
    """Writes the folder; it is there as a whole or not at all."""
    if folder.exists():
        return
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # what a kill left
    save_arrays(part, queries)
    save_log_mels(part, queries.ids, heard)
    artifact.claim(part / MADE_OF, source, "")
    part.rename(folder)


def _load(config: ConfigDict) -> Pipeline:
    index = json.loads((Path(config.model) / "model_index.json").read_text(encoding="utf-8"))
    vocoder = (index.get("vocoder") or [None])[-1] is not None  # absent, null or [null, null]
    parts = (*_PARTS, "vocoder") if vocoder else _PARTS
    return load_pipeline(config.model, parts, ema=config.ema)


def _queries(
    config: ConfigDict,
    pipeline: Pipeline,
    ids: list[str],
    prompts: list[str],
    source: Mapping[str, Any],
    progress: Progress,
) -> examples.Corpus:
    """The final latents with the conditions of their prompts and what they were made by.

    Each batch is kept when it is done, so that a run that was killed samples it only once.
    """
    unet, recipe = pipeline.components["unet"], _recipe(config)
    tokenizer = captions.load_tokenizer(Path(config.model) / "tokenizer", config.tokens or None)
    condition = captions.conditions(
        pipeline.components["text_encoder"], tokenizer, [*prompts, config.negative]
    )
    predict, shape, latents = predict_fn(unet.module), _shape(config, pipeline), []
    for start in range(0, len(ids), config.batch):
        progress("sampling", start, len(ids))
        rows = range(start, min(start + config.batch, len(ids)))
        # The last of the conditions is that of the negative prompt.
        some, none = (
            jax.tree.map(lambda x, i=i: x[i], condition)
            for i in (np.array(rows), np.full(len(rows), len(ids)))
        )
        names = [ids[i] for i in rows]
        # By its pieces: a run that goes on with another batch size makes other files.
        place = fingerprint.of_text(*names)[:16]
        path = Path(config.workdir) / "latents" / f"{place}.safetensors"
        batch_of = {**source, "pieces": names}
        if not path.exists():
            x = generate(predict, pipeline.schedule, unet.params, names, some, none, shape, recipe)
            artifact.save(path, {"latent": x}, batch_of, {})
        latents.append(artifact.load(path, batch_of)[0]["latent"])
    progress("sampling", len(ids), len(ids))
    made = {"negative": config.negative, **recipe._asdict()}
    return examples.corpus_of(
        ids,
        np.concatenate(latents),
        Condition(*jax.tree.map(lambda x: x[:-1], condition)),
        metadata=[{"prompt": prompt, **made} for prompt in prompts],
    )


def _shape(config: ConfigDict, pipeline: Pipeline) -> tuple[int, int, int]:
    """Of a latent: frames, bins, channels."""
    mel, factor = MelSettings(), pipeline.components["vae"].module.config.factor
    frames = round(config.seconds * mel.rate) // mel.hop
    if frames < factor or frames % factor:
        step = factor * mel.hop / mel.rate
        raise InputError(f"seconds = {config.seconds}; give a multiple of {step:g}")
    return (
        frames // factor,
        mel.mels // factor,
        pipeline.components["unet"].module.config.in_channels,
    )


def _recipe(config: ConfigDict) -> Recipe:
    return Recipe(config.sampler, config.steps, config.guidance, config.seed)


def refuse(config: ConfigDict) -> None:
    """Refuses a card that cannot be run, whatever the model.

    Raises:
        InputError: names the setting.
    """
    cards.refuse_keys(config, get_config(), "configs/generate.py")
    if not config.model:
        raise InputError("no model is given; give --config.model=FOLDER")
    if config.batch < 1:
        raise InputError(f"batch = {config.batch}; give 1 at least")
    refuse_recipe(_recipe(config))
    _prompts(config)


def _prompts(config: ConfigDict) -> list[str]:
    given = config.prompts
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise InputError(f"prompts = {given!r} is no JSON list ({error}); mend it") from error
    found = given.split(";") if isinstance(given, str) else list(given)
    if odd := [p for p in found if not isinstance(p, str)]:
        raise InputError(f"prompts: {odd[0]!r} is no text; give strings")
    prompts = [p.strip() for p in found if p.strip()]
    if not prompts:
        raise InputError(f"prompts = {config.prompts!r}; give one at least")
    return prompts


def _source(config: ConfigDict, pipeline: Pipeline, prompts: list[str]) -> Mapping[str, Any]:
    names = ("negative", "seconds", "sampler", "steps", "guidance", "seed", "tokens")
    return {
        "prompts": prompts,
        **{name: config[name] for name in names},
        **{name: c.record.fingerprint for name, c in pipeline.components.items()},
        "code": fingerprint.of_code("tda_jax.diffusion.generation", "tda_jax.models.captions"),
        "versions": fingerprint.versions(),
    }


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress."""
    with Bars() as bars:
        run(config, bars)


if __name__ == "__main__":
    cards.start(main, "configs/generate.py")
