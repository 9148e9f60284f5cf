"""Trains a small text-to-music model from a folder of audio: VAE, text encoder, denoiser.

python -m experiments.train --config=configs/train.py --config.audio=FOLDER --config.workdir=DIR
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from configs.encode_corpus import get_config as encoding_card
from configs.train import get_config
from experiments import cards, encode_corpus
from experiments.attribute_outputs import write_summary
from experiments.progress import Bars, Clock, Progress
from tda_jax import devices, fingerprint
from tda_jax.artifact import claim, whole_file
from tda_jax.attribution.units import tracks_of
from tda_jax.audio.mel import MelSettings
from tda_jax.corpus import chunking, dataset, encoding, folder
from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.errors import InputError
from tda_jax.examples import in_memory, take
from tda_jax.models import captions
from tda_jax.models.clip_text import CLIPTextModel
from tda_jax.models.denoiser import predict_fn
from tda_jax.models.export import save_component, save_pipeline
from tda_jax.models.families import FAMILIES
from tda_jax.models.folders import SCHEDULER
from tda_jax.models.pretrained import Component, Pipeline, load_component, load_pipeline
from tda_jax.models.random_pipeline import AUDIOLDM_SCHEDULER
from tda_jax.training import autoencoder, contrast, denoiser, parts
from tda_jax.training.checkpoints import Checkpoints
from tda_jax.training.loop import Recipe, Trained

# v-prediction (arXiv 2202.00512): a small network's error in ε is divided by a signal of 0.01 or so
# when sampling starts, and what it generates then blows up.
_SCHEDULER = {**AUDIOLDM_SCHEDULER, "prediction_type": "v_prediction"}
_SHOWS = 10  # updates between two signs of progress
_TRAINING = ("autoencoder", "contrast", "denoiser", "parts")
_DECIDES_NOTHING = ("audio", "workdir", "devices", "every")  # of the settings
_CHUNK, _BATCH = 32, 8  # files and windows at a time


class _Run(NamedTuple):
    """What the stages share."""

    config: ConfigDict
    sizes: parts.Sizes
    members: list[folder.Track]
    audio: str  # fingerprint of the files and captions trained on
    workdir: Path
    progress: Progress


def run(config: ConfigDict, progress: Progress) -> dict[str, Any]:
    """Runs a card; what a stage made already is not made again.

    Args:
        config: as `configs/train.py` gives it.
        progress: told of updates and files done.

    Returns:
        What `summary.json` holds.

    Raises:
        InputError: something given cannot be used, or the folder holds another run.
    """
    refuse(config)
    sizes = sizes_of(config)
    if not config.audio:
        raise InputError("no audio is given; give --config.audio=FOLDER")
    clock, listing = Clock(progress), folder.list_folder(Path(config.audio))
    print(folder.report(listing))
    members = [track for track in listing.tracks if track.member]
    if not members:
        raise InputError(f"{config.audio}: no track has the split 'train'; give some to train on")
    if len({text for track in members for text in track.captions}) < 2:
        raise InputError(
            f"{config.audio}: every track has the same caption, from which no text encoder learns "
            "anything; give captions that tell tracks apart"
        )
    # One that cannot be read is skipped later, with its reason.
    prints, _ = chunking.prints_of([chunking.File(t.id, t.path) for t in members])
    said = [f"{t.id} {prints.get(t.id)} {list(t.captions)}" for t in members]
    audio = fingerprint.of_text(*said)
    made = _Run(config, sizes, members, audio, Path(config.workdir), clock)
    decides = {k: v for k, v in config.to_dict().items() if k not in _DECIDES_NOTHING}
    source = {"audio": audio, "config": decides}
    remedy = "Give another --config.workdir, or delete that folder to train again"
    claim(made.workdir / "made_of.json", source, remedy)
    vae = _vae(made)
    _encoders(made, vae)
    encoded = _encode(made, clock)
    _denoiser(made)
    content = {
        "tracks": encoded["tracks"],  # that could be read, and were trained on
        "skipped": encoded["skipped"],
        "parts": _losses(made.workdir),
        "made_of": source,
        "seconds": clock.seconds(made.workdir / "summary.json"),
    }
    path = write_summary(made.workdir, content)
    print(f"wrote {made.workdir / 'model'}/, {made.workdir / 'encoded' / 'dataset'}/ and {path}")
    return content


def sizes_of(config: ConfigDict) -> parts.Sizes:
    """The sizes of a card."""
    return parts.Sizes(**{name: config.sizes[name] for name in parts.Sizes._fields})


def refuse(config: ConfigDict) -> None:
    """Refuses a card that cannot be run, also for what a later stage would refuse after hours.

    Raises:
        InputError: names the setting.
    """
    cards.refuse_keys(config, get_config(), "configs/train.py")
    sizes = sizes_of(config)
    parts.refuse(config.kind, sizes)
    mel, factor = MelSettings(), 2 ** (len(sizes.vae) - 1)
    frames = round(config.seconds * mel.rate) // mel.hop
    halvings = factor * 2 ** (len(sizes.unet) - 1)
    if frames < 1 or frames % halvings or mel.mels % halvings:
        raise InputError(
            f"seconds = {config.seconds} are {frames} frames of {mel.mels} mels; give a multiple "
            f"of {halvings * mel.hop / mel.rate:g}, or fewer levels in sizes.vae and sizes.unet"
        )
    crop = config.vae.crop
    if not factor <= crop <= frames or crop % factor:
        raise InputError(
            f"vae.crop = {crop} frames; give a multiple of {factor} from {factor} to {frames}"
        )
    if not 0 <= config.denoiser.dropout <= 1:
        raise InputError(f"denoiser.dropout = {config.denoiser.dropout}; give a share, 0 to 1")
    for part in ("vae", "text", "denoiser"):
        for name in ("steps", "batch", "learning_rate"):
            if not config[part][name] > 0:
                raise InputError(f"{part}.{name} = {config[part][name]}; give more than 0")
    if config.every < 1:
        raise InputError(f"every = {config.every}; give the updates between checkpoints")


def _vae(run: _Run) -> Component:
    """The VAE with its latents' scale, from its folder or trained now."""
    place, own = run.workdir / "vae", run.config.vae
    if not place.exists():
        files = [chunking.File(t.id, t.path) for t in run.members]
        cut = chunking.Cut(run.config.seconds)
        seen = encoding.spectrograms(files, cut, MelSettings())
        if not len(seen.mel):
            raise InputError(f"{run.config.audio}: no file could be read: {seen.skipped}")
        x, start = seen.mel[..., None], parts.vae(run.sizes, run.config.seed)
        objective = autoencoder.Objective(own.crop, own.divergence)
        recipe = _recipe(own, len(x), run.config.seed)
        params = autoencoder.fitted_start(start.params, x)
        source = _source(run, "vae", own)
        kept = _checkpoints(run, "vae", source)
        found = autoencoder.fit(
            start.module, params, x, objective, recipe, kept, *_shown(run, "VAE", recipe)
        )
        _note(run, "vae", found)
        save_component(place, start._replace(params=jax.device_get(found.params)))
    return load_component(place)


def _encoders(run: _Run, vae: Component) -> None:
    """A pipeline of VAE and text encoder: what `encode_corpus` takes."""
    place, own = run.workdir / "encoders", run.config.text
    if place.exists():
        return
    tracks = {track.id: track for track in run.members}
    files = [chunking.File(t.id, t.path) for t in run.members]
    made = encoding.encode(
        files,
        chunking.Cut(run.config.seconds),
        MelSettings(),
        vae,
        run.workdir / "encoded" / "chunks",
        _CHUNK,
        _BATCH,
        devices.local_devices(run.config.devices or None),
        run.progress,
    )
    chunks = [encoding.read_chunk(chunk) for chunk in made]
    mean, std, frames = (
        np.concatenate([getattr(c, name) for c in chunks]) for name in ("mean", "std", "frames")
    )
    names = [name for c in chunks for name in c.id]  # of each window's track
    _, track = np.unique(names, return_inverse=True)
    said = [tracks[name].captions for name in names]
    texts = [text for some in said for text in some]
    row = np.repeat(np.arange(len(said)), [len(some) for some in said])  # each with each caption
    start, tokenizer = parts.text_encoder(run.config.kind, run.sizes, texts, run.config.seed)
    ids, mask = captions.token_ids(tokenizer, texts)
    sounds = contrast.sound_features(mean, frames)
    pairs = contrast.Pairs(ids, mask, sounds[row], track[row])
    recipe = _recipe(own, len(ids), run.config.seed)
    kept = _checkpoints(run, "text", _source(run, "text", own))
    found = contrast.fit(
        _embed(start), start.params, pairs, recipe, kept, *_shown(run, "text encoder", recipe)
    )
    _note(run, "text", found)
    scale = {"scaling_factor": autoencoder.latent_scale(mean, std)}
    scaled = parts.component("AutoencoderKL", vae.config | scale, 0)._replace(params=vae.params)
    encoder = start._replace(params=jax.device_get(found.params))
    index = _index(run, {"vae": scaled, "text_encoder": encoder})
    part = run.workdir / "encoders.part"
    _discard(part)
    save_pipeline(part, Pipeline({"vae": scaled, "text_encoder": encoder}, None, index, {}))
    captions.save_tokenizer(part / "tokenizer", tokenizer)
    part.rename(place)


def _encode(run: _Run, clock: Progress) -> dict[str, Any]:
    """The dataset, members and decoys; what its summary holds."""
    spec = encoding_card()
    given = {"audio": run.config.audio, "model": str(run.workdir / "encoders")}
    given |= {"workdir": str(run.workdir / "encoded"), "seconds": run.config.seconds}
    given |= {"devices": run.config.devices, "batch": _BATCH, "chunk": _CHUNK}
    for name, value in given.items():
        spec[name] = value
    return encode_corpus.run(spec, clock)


def _denoiser(run: _Run) -> None:
    """The whole pipeline, with a denoiser trained on the dataset's members."""
    place, own = run.workdir / "model", run.config.denoiser
    if place.exists():
        return
    encoded = run.workdir / "encoded" / "dataset"
    corpus = in_memory(dataset.read_dataset(encoded))
    members = take(corpus, np.flatnonzero(corpus.members))
    pipeline = load_pipeline(run.workdir / "encoders", ("vae", "text_encoder"))
    tokenizer = captions.load_tokenizer(run.workdir / "encoders" / "tokenizer")
    empty = captions.conditions(pipeline.components["text_encoder"], tokenizer, [""])
    dropout = denoiser.Dropout(jax.tree.map(lambda x: x[0], empty), own.dropout)
    start = parts.unet(run.config.kind, run.sizes, run.config.seed)
    schedule = schedule_from_config(_SCHEDULER, "the denoiser's schedule")
    tracks = tracks_of(members)
    recipe = _recipe(own, len(tracks.ids), run.config.seed)
    source = _source(run, "denoiser", own) | {"dataset": dataset.made_of(encoded)}
    source |= {"tracks": fingerprint.of_array(tracks.of_unit)}
    found = denoiser.fit(
        predict_fn(start.module),
        schedule,
        start.params,
        members.examples,
        recipe,
        dropout,
        _checkpoints(run, "denoiser", source),
        *_shown(run, "denoiser", recipe),
        tracks=tracks.of_unit,
    )
    _note(run, "denoiser", found)
    made = {**pipeline.components, "unet": start._replace(params=jax.device_get(found.params))}
    part = run.workdir / "model.part"
    _discard(part)
    save_pipeline(part, Pipeline(made, schedule, _index(run, made), {}))
    captions.save_tokenizer(part / "tokenizer", tokenizer)
    part.rename(place)


def _source(run: _Run, part: str, own: ConfigDict) -> dict[str, Any]:
    """What the training of a part depends on."""
    return {
        "part": part,
        "audio": run.audio,
        "kind": run.config.kind,
        "seconds": run.config.seconds,
        "seed": run.config.seed,
        "sizes": run.sizes._asdict(),
        "recipe": own.to_dict(),
        "code": fingerprint.of_code(*(f"tda_jax.training.{name}" for name in _TRAINING)),
        "versions": fingerprint.versions(),
    }


def _recipe(own: ConfigDict, n: int, seed: int) -> Recipe:
    """The recipe of a part; a batch is never larger than what there is."""
    return Recipe(own.steps, min(own.batch, n), own.learning_rate, seed)


def _checkpoints(run: _Run, part: str, source: Mapping[str, Any]) -> Checkpoints:
    return Checkpoints(run.workdir / "checkpoints" / part, source, run.config.every)


def _shown(
    run: _Run, what: str, recipe: Recipe
) -> tuple[Callable[[int, Any], None], tuple[int, ...]]:
    """A callback that shows progress, and the updates at which it is called."""
    stage = f"training the {what}"
    run.progress(stage, 0, recipe.steps)
    steps = (*range(_SHOWS, recipe.steps, _SHOWS), recipe.steps)
    return lambda done, _: run.progress(stage, done, recipe.steps), steps


def _note(run: _Run, part: str, found: Trained) -> None:
    """Keeps the loss of every update, before the part that it says was trained."""
    path = run.workdir / "losses" / f"{part}.npy"
    with whole_file(path) as half, half.open("wb") as file:
        np.save(file, found.losses)


def _losses(workdir: Path) -> dict[str, Any]:
    """Of each part, the mean loss of the first and the last tenth of the updates."""
    found = {}
    for part in ("vae", "text", "denoiser"):
        losses = np.load(workdir / "losses" / f"{part}.npy")
        tenth = max(1, len(losses) // 10)
        first, last = (float(x.mean()) for x in (losses[:tenth], losses[-tenth:]))
        found[part] = {"first": first, "last": last, "updates": len(losses)}
    return found


def _embed(start: Component) -> contrast.Embed:
    """The vector of a caption."""
    apply = start.module.apply
    if isinstance(start.module, CLIPTextModel):
        return lambda params, ids, mask: apply({"params": params}, ids).pooled
    return lambda params, ids, mask: apply({"params": params}, ids, mask)


def _index(run: _Run, made: Mapping[str, Component]) -> dict[str, Any]:
    """What `model_index.json` says."""
    classes = {name: component.record.class_name for name, component in made.items()}
    named = {name: [FAMILIES[c].library, c] for name, c in classes.items()}
    scheduler = {SCHEDULER: ["diffusers", AUDIOLDM_SCHEDULER["_class_name"]]}
    known = {"_class_name": parts.PIPELINES[run.config.kind]}
    return {**known, encode_corpus.TRAINED_ON_CAPTIONS: True, **scheduler, **named}


def _discard(part: Path) -> None:
    """Takes away what a kill left."""
    shutil.rmtree(part, ignore_errors=True)


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress and compiled programs that are kept."""
    cards.keep_compiled(Path(config.workdir) / "cache")
    with Bars() as bars:
        run(config, bars)


if __name__ == "__main__":
    cards.start(main, "configs/train.py")
