"""Encodes a folder of audio into a dataset of latents and conditions.

python -m experiments.encode_corpus --config=configs/encode_corpus.py --config.audio=FOLDER
    --config.model=FOLDER --config.workdir=DIR
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments import cards
from experiments.attribute_outputs import write_summary
from experiments.progress import Bars, Clock, Progress
from tda_jax import devices, fingerprint
from tda_jax.audio.mel import MelSettings
from tda_jax.corpus import dataset, encoding, folder, packing
from tda_jax.errors import InputError
from tda_jax.models import captions
from tda_jax.models.denoiser import Condition
from tda_jax.models.pretrained import Pipeline, load_pipeline


def run(config: ConfigDict, progress: Progress) -> dict[str, Any]:
    """Runs a card: lists, reads, encodes, writes the dataset and a summary.

    Args:
        config: as `configs/encode_corpus.py` gives it.
        progress: told of files done.

    Returns:
        What `summary.json` holds.

    Raises:
        InputError: something given cannot be used; what one file alone is to blame for skips it.
    """
    _refuse(config)
    clock, workdir = Clock(progress), Path(config.workdir)
    listing = folder.list_folder(Path(config.audio))
    print(folder.report(listing))
    pipeline = load_pipeline(config.model, ("vae", "text_encoder"))
    vae = pipeline.components["vae"]
    tokenizer_folder = Path(config.model) / "tokenizer"
    tokenizer = captions.load_tokenizer(tokenizer_folder, config.tokens or None)

    def conditions(texts: Sequence[str]) -> Condition:
        return captions.conditions(pipeline.components["text_encoder"], tokenizer, texts)

    conditions(["a caption"])  # what does not fit is refused before the work
    chunks = encoding.encode(
        [encoding.File(track.id, track.path) for track in listing.tracks],
        encoding.Cut(config.seconds, config.hop, config.windows or None),
        MelSettings(),
        vae,
        workdir / "chunks",
        config.chunk,
        config.batch,
        devices.local_devices(config.devices or None),
        clock,
    )
    packed = packing.pack(chunks, listing.tracks, vae.module.config, conditions)
    clock("writing the dataset", 0, 1)
    place = workdir / "dataset"
    source = _source(config, pipeline, tokenizer_folder, packed.rows)
    dataset.write_dataset(place, packed.rows, source)
    clock("writing the dataset", 1, 1)
    skipped = {s.file_name: s.reason for s in listing.skipped} | packed.skipped
    content = _summary(packed.rows, skipped) | {"made_of": source, "seconds": clock.seconds()}
    path = write_summary(workdir, content)
    for name, reason in skipped.items():
        cards.warn(f"skipped {name}: {reason}")
    print(
        f"{content['tracks']} tracks and {content['decoys']} decoys in {content['windows']} "
        f"windows, {len(skipped)} files skipped; wrote {place}/ and {path}"
    )
    return content


def _refuse(config: ConfigDict) -> None:
    for name in ("audio", "model"):
        if not config[name]:
            raise InputError(f"no {name} is given; give --config.{name}=FOLDER")
    for name in ("batch", "chunk"):
        if config[name] < 1:
            raise InputError(f"{name} = {config[name]}; give 1 at least")
    for name in ("windows", "tokens", "devices"):
        if config[name] < 0:
            raise InputError(f"{name} = {config[name]}; give 0 for the default, or more")


def _source(
    config: ConfigDict, pipeline: Pipeline, tokenizer: Path, rows: Sequence[dataset.Row]
) -> dict[str, Any]:
    """What the dataset is made from: models, windows, code, and the rows themselves."""
    weights = {name: c.record.fingerprint for name, c in pipeline.components.items()}
    files = sorted(path for path in tokenizer.iterdir() if path.is_file())
    arrays = [
        f"{r.id} {r.member} {fingerprint.of_array(r.mean)} {json.dumps(r.metadata)} {r.captions}"
        for r in rows
    ]
    return {
        **weights,
        "tokenizer": fingerprint.of_files(files),
        "tokens": config.tokens,
        "windows": {name: config[name] for name in ("seconds", "hop", "windows")},
        "rows": fingerprint.of_text(*arrays),
        "latent": "the posterior's mean",
    }


def _summary(rows: Sequence[dataset.Row], skipped: Mapping[str, str]) -> dict[str, Any]:
    tracks = {row.track: row.member for row in rows}
    members = sum(tracks.values())
    frames = [row.frames for row in rows]
    return {
        "tracks": members,
        "decoys": len(tracks) - members,
        "windows": len(rows),
        "captions": len({text for row in rows for text in row.captions}),
        "latent": list(rows[0].mean.shape) if rows else None,
        "valid_frames": {"mean": sum(frames) / len(frames), "least": min(frames)} if rows else None,
        "skipped": [{"file": name, "reason": reason} for name, reason in skipped.items()],
    }


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress."""
    with Bars() as bars:
        run(config, bars)


if __name__ == "__main__":
    cards.start(main, "configs/encode_corpus.py")
