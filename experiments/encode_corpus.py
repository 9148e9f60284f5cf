"""Encodes a folder of audio into a dataset of latents and conditions.

python -m experiments.encode_corpus --config=configs/encode_corpus.py --config.audio=FOLDER
    --config.model=FOLDER --config.workdir=DIR
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs.encode_corpus import get_config
from experiments import cards
from experiments.attribute_outputs import write_summary
from experiments.progress import Bars, Clock, Progress
from experiments.status import Status
from tda_jax import artifact, devices, fingerprint, hosts
from tda_jax.audio.mel import MelSettings
from tda_jax.corpus import chunking, dataset, encoding, folder, packing, shares, stored
from tda_jax.errors import InputError
from tda_jax.export import write_csv
from tda_jax.models import captions
from tda_jax.models.denoiser import Condition
from tda_jax.models.pretrained import Pipeline, load_pipeline

TRAINED_ON_CAPTIONS = "_trained_on_captions"
"""The key of `model_index.json` by which `experiments.train` says so of a model."""
_CLAP = "ClapTextModelWithProjection"
_PATIENCE = 1800.0  # seconds within which all processes have read what they are given


def run(config: ConfigDict, progress: Progress, among: hosts.Hosts = hosts.ALONE) -> dict[str, Any]:
    """Runs a card: lists, reads, encodes, writes the dataset, a summary and what was skipped.

    Args:
        config: as `configs/encode_corpus.py` gives it.
        progress: told of files done.
        among: this process of those that share the encoding, each of which calls this.

    Returns:
        What `summary.json` holds; nothing but for process 0, which writes it.

    Raises:
        InputError: something given cannot be used; no file can; the workdir holds what other
            settings or models made, before any work. What one file alone is to blame for skips it.
    """
    _refuse(config)
    clock, workdir = Clock(progress), Path(config.workdir)
    source = _settings(config)
    _refuse_other(workdir, source)
    listing = folder.list_folder(Path(config.audio))
    if among.first:
        print(folder.report(listing))
    pipeline = load_pipeline(config.model, ("vae", "text_encoder"))
    tokenizer = captions.load_tokenizer(Path(config.model) / "tokenizer", config.tokens or None)
    source |= _models(config, pipeline)
    if among.first:
        _warn_of_conditions(config, pipeline)
    _refuse_other(workdir, source)
    made = _Made(config, pipeline, tokenizer, listing)
    made.conditions(["a caption"])  # what does not fit is refused before the work
    if among.first:
        artifact.sweep(made.folder)
    hosts.meet_in(among, workdir, f"encode {_print(config, source, listing)}", _PATIENCE)
    chunks = list(made.chunks(clock, among))
    if among.count > 1:
        shares.tell(made.folder, among, chunks)
    hosts.meet(among, "files encoded")
    if not among.first:
        hosts.meet(among, "dataset written")
        return {}
    if among.count > 1:
        chunks = shares.told(made.folder, among)
    packed = packing.outline(chunks, listing.tracks)
    names = {track.id: track.file_name for track in listing.tracks}
    skipped = [*listing.skipped]
    skipped += [folder.Skipped(names[i], reason) for i, reason in packed.skipped.items()]
    _refuse_rows(config, packed.windows, skipped)
    clock("writing the dataset", 0, 1)
    source["rows"] = _fingerprint(chunks, packed.windows)
    sides = (made.rows(chunks, member) for member in (True, False))
    dataset.write_dataset(workdir / "dataset", *sides, source)
    clock("writing the dataset", 1, 1)
    _write_skipped(workdir, skipped)
    content = _summary(packed, listing, skipped)
    content |= {"made_of": source, "seconds": clock.seconds(workdir / "summary.json")}
    path = write_summary(workdir, content)
    for name, reason in skipped:
        cards.warn(f"skipped {name!r}: {_in_one_line(reason)}")
    print(
        f"{content['tracks']} tracks and {content['decoys']} decoys in {content['windows']} "
        f"windows, {len(skipped)} files skipped; wrote {workdir / 'dataset'}/ and {path}"
    )
    hosts.meet(among, "dataset written")
    return content


def _print(config: ConfigDict, source: Mapping[str, Any], listing: folder.Listing) -> str:
    """What must be the same in every process, so that each leaves what the others lack."""
    own = {**source, "chunk": config.chunk, "workdir": str(Path(config.workdir).absolute())}
    return fingerprint.of_text(json.dumps(own, sort_keys=True), *(t.id for t in listing.tracks))


def _warn_of_conditions(config: ConfigDict, pipeline: Pipeline) -> None:
    """Says so where a model is not known to have been trained on captions."""
    class_name = pipeline.components["text_encoder"].record.class_name
    index = json.loads((Path(config.model) / "model_index.json").read_text(encoding="utf-8"))
    if class_name == _CLAP and not index.get(TRAINED_ON_CAPTIONS):
        cards.warn(
            f"{config.model}: AudioLDM and MusicLDM are trained on CLAP's embeddings of sound, and "
            "tracks get those of their captions here, which the model saw of no track; give "
            "embeddings of sound as arrays where the scores must be right"
        )


class _Made(NamedTuple):
    """What the dataset is made of."""

    config: ConfigDict
    pipeline: Pipeline
    tokenizer: captions.CaptionTokenizer
    listing: folder.Listing

    @property
    def folder(self) -> Path:
        """Of the chunks."""
        return Path(self.config.workdir) / "chunks"

    def conditions(self, texts: Sequence[str]) -> Condition:
        return captions.conditions(self.pipeline.components["text_encoder"], self.tokenizer, texts)

    def chunks(self, progress: Progress, among: hosts.Hosts) -> Iterator[chunking.Chunk]:
        """The encoded files, of this process's share."""
        config = self.config
        return encoding.encode(
            [chunking.File(track.id, track.path) for track in self.listing.tracks],
            chunking.Cut(config.seconds, config.hop, config.windows or None),
            MelSettings(),
            self.pipeline.components["vae"],
            self.folder,
            config.chunk,
            config.batch,
            devices.local_devices(config.devices or None),
            progress,
            among,
        )

    def rows(self, chunks: Sequence[chunking.Chunk], member: bool) -> Iterator[dataset.Row]:
        vae = self.pipeline.components["vae"].module.config
        return packing.rows(chunks, self.listing.tracks, vae, self.conditions, member)


def _refuse(config: ConfigDict) -> None:
    """Refuses a card that cannot be run, whatever the folders hold."""
    cards.refuse_keys(config, get_config(), "configs/encode_corpus.py")
    for name in ("audio", "model"):
        if not config[name]:
            raise InputError(f"no {name} is given; give --config.{name}=FOLDER")
    for name in ("batch", "chunk"):
        if config[name] < 1:
            raise InputError(f"{name} = {config[name]}; give 1 at least")
    for name in ("windows", "tokens", "devices"):
        if config[name] < 0:
            raise InputError(f"{name} = {config[name]}; give 0 for the default, or more")
    for name in ("seconds", "hop"):
        if config[name] is not None and not 0 < config[name] < math.inf:
            raise InputError(f"{name} = {config[name]}; give a number of seconds above 0")


def _refuse_other(workdir: Path, source: Mapping[str, Any]) -> None:
    """Refuses a workdir whose dataset was made otherwise, so far as `source` is known."""
    place = workdir / "dataset"
    if stored.is_dataset(place):
        there = dataset.made_of(place)
        remedy = f"Delete {place} to pack it again, or give another workdir"
        there = {name: there[name] for name in source if name in there}
        fingerprint.refuse_other(str(place), there, source, remedy)
    elif place.exists() or (workdir.exists() and not workdir.is_dir()):
        taken = place if place.exists() else workdir
        raise InputError(
            f"{taken}: is in the way, where a dataset will be written; move it, or give another "
            "workdir"
        )


def _refuse_rows(
    config: ConfigDict, windows: Sequence[packing.Window], skipped: Sequence[folder.Skipped]
) -> None:
    if not windows:
        path = _write_skipped(Path(config.workdir), skipped)
        name, reason = skipped[0]
        raise InputError(
            f"{config.audio}: none of its {len(skipped)} files can be used, such as {name!r} "
            f"({_in_one_line(reason)}); {path} says why of each"
        )
    seen: dict[str, str] = {}
    for window in windows:
        if window.id in seen:
            raise InputError(
                f"windows of the tracks {seen[window.id]!r} and {window.track.id!r} are both "
                f"called {window.id!r}; give one of the tracks another id in {folder.METADATA}"
            )
        seen[window.id] = window.track.id


def _settings(config: ConfigDict) -> dict[str, Any]:
    """What the dataset is made from, as far as the card says it."""
    return {
        "tokens": config.tokens,
        "windows": {name: config[name] for name in ("seconds", "hop", "windows")},
        "latent": "the posterior's mean",
    }


def _models(config: ConfigDict, pipeline: Pipeline) -> dict[str, Any]:
    """The models that it is made with."""
    tokenizer = Path(config.model) / "tokenizer"
    files = sorted(path for path in tokenizer.iterdir() if path.is_file())
    weights = {name: c.record.fingerprint for name, c in pipeline.components.items()}
    return {**weights, "tokenizer": fingerprint.of_files(files)}


def _fingerprint(chunks: Sequence[chunking.Chunk], windows: Sequence[packing.Window]) -> str:
    """Of what decides the rows, beside what `_settings` and `_models` say."""
    tracks = {window.track.id: window.track for window in windows}
    prints = {name: value for chunk in chunks for name, value in chunk.made_of["files"].items()}
    said = (
        [t.id, prints[t.id], t.member, t.captions, t.title, t.artist, t.file_name, t.carried]
        for t in tracks.values()
    )
    encoder = {name: value for name, value in chunks[0].made_of.items() if name != "files"}
    return fingerprint.of_text(json.dumps(encoder, sort_keys=True), *map(json.dumps, said))


def _write_skipped(workdir: Path, skipped: Sequence[folder.Skipped]) -> Path:
    """Writes `skipped.csv`, in place of what was there."""
    path = workdir / "skipped.csv"
    columns = {"file": [s.file_name for s in skipped], "reason": [s.reason for s in skipped]}
    write_csv(path, columns)
    return path


def _in_one_line(text: str) -> str:
    """A text that may quote the name of a file, for people."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def _summary(
    packed: packing.Packed, listing: folder.Listing, skipped: Sequence[folder.Skipped]
) -> dict[str, Any]:
    tracks = {window.track.id: window.track for window in packed.windows}
    members = sum(track.member for track in tracks.values())
    frames = [window.frames for window in packed.windows]
    return {
        "tracks": members,
        "decoys": len(tracks) - members,
        "windows": len(packed.windows),
        "captions": len({text for track in tracks.values() for text in track.captions}),
        "latent": list(packed.shape),
        "valid_frames": {"mean": sum(frames) / len(frames), "least": min(frames)},
        "files": {
            "listed": len(listing.tracks) + len(listing.skipped),
            "read": len(tracks),
            "skipped": len(skipped),
            "without_a_line": len(listing.unlisted),
        },
        "skipped": [{"file": name, "reason": reason} for name, reason in skipped],
    }


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress."""
    among = cards.hosts_of(config)
    with Bars() as bars, Status(bars, Path(config.workdir) / "status", among) as kept:
        run(config, kept, among)


if __name__ == "__main__":
    cards.start(main, "configs/encode_corpus.py")
