"""What a run of `experiments.attribute` needs, read and checked: cheap checks come first."""

import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from configs.arrays import get_config
from experiments import cards
from tda_jax import devices, examples, places
from tda_jax.attribution import by_unlearning
from tda_jax.attribution import settings as known
from tda_jax.attribution.contract import Model
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.attribution.unet import unet_model
from tda_jax.attribution.units import Tracks, outline, tracks_of
from tda_jax.baselines.likeness import Pooled
from tda_jax.corpus import dataset, fitting, stored, tensors
from tda_jax.corpus.arrays import read_arrays, read_log_mels, read_queries
from tda_jax.corpus.assembly import refuse_layout
from tda_jax.corpus.metadata import QUERY_FRAMES
from tda_jax.errors import InputError
from tda_jax.examples import Corpus
from tda_jax.hosts import ALONE, Hosts
from tda_jax.models.families import FAMILIES, template
from tda_jax.models.folders import SCHEDULER, choose_weights, class_name, read_json, sort_index
from tda_jax.models.groups import group_pattern
from tda_jax.models.pretrained import load_pipeline
from tda_jax.models.unet_config import UNetConfig
from tda_jax.places import Place

_UNET = "UNet2DConditionModel"
_ENCODERS = ("vae", "text_encoder")
_MADE_OF = "made_of.json"  # beside arrays, what generated them
_SHOWN = 5


class Inputs(NamedTuple):
    """What a run is given.

    Attributes:
        corpus: members and decoys; a row is a track, or a window and a caption of one (`units`).
        tracks: of the corpus.
        queries: to be attributed.
        settings: what decides the scores.
        compute: devices and batches.
        heard: pooled log-mels of the queries and of the corpus by id, where there are any.
        warnings: what may be wrong, for people to judge.
    """

    corpus: Corpus
    tracks: Tracks
    queries: Corpus
    settings: Settings
    compute: Compute
    heard: tuple[Pooled, Pooled]
    warnings: list[str]


def refuse_card(config: Any) -> None:
    """Refuses a card that cannot be run, whatever the folders hold.

    Raises:
        InputError: folders that do not go together, or a value that is out of range.
    """
    cards.refuse_keys(config, get_config(), "configs/arrays.py")
    own = bool(config.model)
    if own != bool(config.corpus):
        given, missing = ("model", "corpus") if own else ("corpus", "model")
        raise InputError(
            f"{given} = {config[given]!r} but no {missing}; give --config.{missing}=FOLDER too, or "
            "neither of them for the synthetic default"
        )
    if own and not (config.queries or config.query_ids):
        raise InputError(
            "neither queries nor query_ids are given; give --config.queries=FOLDER, or "
            "--config.query_ids=ID,ID for tracks of the corpus, or both"
        )
    if own and not config.corpus_size:
        raise InputError(
            "corpus_size = 0; give --config.corpus_size=N, the number of tracks that the model was "
            "trained on, also where only some of them are scored"
        )
    refuse_layout(config.layout)
    known.refuse_values(settings_of(config, 1))
    known.refuse_compute(compute_of(config), unset=True)
    workdir = places.place(config.workdir)
    if places.is_url(workdir) and not own:
        raise InputError(
            f"workdir = {config.workdir!r} is in a bucket, and what is made without --config.model "
            "and --config.corpus needs a folder; give both, or another workdir"
        )
    for name in ("corpus", "queries"):
        if places.is_url(config[name]) and not config[name].startswith("gs://"):
            raise InputError(
                f"{name} = {config[name]!r}: datasets are read from gs:// alone; copy the bucket, "
                "or give the folder that it is mounted at"
            )
    for name in ("workdir", "corpus", "queries"):
        places.reach(places.place(config[name]))


def read(config: Any, unet: UNetConfig, among: Hosts = ALONE) -> Inputs:
    """Reads corpus and queries, and refuses what does not fit each other, the card or the UNet.

    Args:
        config: a card that `refuse_card` let pass, with `corpus`.
        unet: from `unet_config`.
        among: this process of those that share the work.

    Raises:
        InputError: names the cause, the value and the remedy.
    """
    groups = FAMILIES[_UNET].groups(unet)
    group_pattern(groups, config.group)
    corpus = read_corpus(config, unet)
    tracks = tracks_of(corpus)
    queries = _queries(config, corpus, tracks, unet)
    settings = settings_of(config, int(tracks.members.sum()))
    shapes = Model(_never, template(FAMILIES[_UNET], unet), groups, 0, "")
    known.refuse(shapes, corpus, queries, settings)
    warnings = fitting.scale_warnings(corpus, "tracks") + fitting.scale_warnings(queries, "queries")
    warnings += fitting.decoy_warnings(outline(corpus, tracks))
    heard = _heard(config, corpus, queries)
    compute = compute_of(config, among)
    return Inputs(corpus, tracks, queries, settings, compute, heard, warnings)


def read_corpus(config: Any, unet: UNetConfig) -> Corpus:
    """Reads the corpus of a card, and refuses one that does not fit the UNet."""
    return _read(places.place(config.corpus), config.layout, unet, "tracks", read_arrays)


def unet_config(config: Any) -> UNetConfig:
    """The UNet's settings, from the JSON files of the model's folder alone.

    Raises:
        InputError: there is no pipeline, or it has no UNet or scheduler that is ported.
    """
    folder = Path(config.model)
    sort_index(folder, read_json(folder / "model_index.json"), ("unet", SCHEDULER))
    place, _, _ = choose_weights(folder / "unet", ema=config.ema, variant=config.variant or None)
    source = place / "config.json"
    found = read_json(source)
    if class_name(found, source) != _UNET:
        raise InputError(f"{source}: is for {class_name(found, source)}; give a {_UNET}")
    return FAMILIES[_UNET].read_config(found, str(source))


def load_model(config: Any) -> Model:
    """The UNet of the model's folder, with its noise schedule.

    Raises:
        InputError: see `load_pipeline`; corpus or queries say that other models made them.
    """
    made = _made_of(config)
    parts = _recorded(config, made)
    pipeline = load_pipeline(
        config.model,
        ("unet", SCHEDULER, *parts),
        ema=config.ema,
        variant=config.variant or None,
        loras=dict(config.loras),
        cache=config.cache or None,
    )
    here = {name: c.record.fingerprint for name, c in pipeline.components.items()}
    for folder, there in made.items():
        if other := [name for name in here if there.get(name, here[name]) != here[name]]:
            raise InputError(
                f"{folder}: was made with another {' and '.join(other)} than {config.model} has; "
                "give the model that made it, or make it again with this one"
            )
    return unet_model(pipeline.components["unet"], pipeline.schedule)


def _made_of(config: Any) -> dict[str, Mapping[str, Any]]:
    """What corpus and queries say that they were made with, by folder; arrays may say nothing."""
    found = {}
    for name in ("corpus", "queries"):
        folder = places.place(config.get(name) or "")
        if config.get(name) and dataset.is_own(folder):
            found[str(folder)] = dataset.made_of(folder)
        elif config.get(name) and not places.is_url(folder) and (folder / _MADE_OF).exists():
            found[str(folder)] = read_json(folder / _MADE_OF)
    return found


def _recorded(config: Any, made: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The other parts of the model that corpus or queries were made with, if it has them."""
    index = read_json(Path(config.model) / "model_index.json")
    named = {name for there in made.values() for name in _ENCODERS if name in there}
    return sorted(name for name in named if (index.get(name) or [None])[-1] is not None)


def settings_of(config: Any, members: int) -> Settings:
    """The settings of a card; without `corpus_size`, N is the number of members given."""
    values = {name: config[name] for name in Settings._fields}
    return Settings(**values | {"corpus_size": config.corpus_size or members})


def compute_of(config: Any, among: Hosts = ALONE) -> Compute:
    """The devices and batches of a card, for this process of several."""
    used = devices.local_devices(config.devices or None)
    sizes = {n: config[n] for n in Compute._fields if n not in ("devices", "hosts")}
    return Compute(used, hosts=among, **sizes)


def listed(ids: Any) -> list[str]:
    """The ids that a card gives: a sequence, a JSON list, or text with commas between them.

    Raises:
        InputError: a text that starts as a JSON list and is none.
    """
    if not isinstance(ids, str):
        return list(ids)
    if not ids.lstrip().startswith("["):
        return [part.strip() for part in ids.split(",") if part.strip()]
    try:
        return list(json.loads(ids))
    except ValueError as error:
        raise InputError(f"query_ids = {ids!r} is no JSON list ({error}); mend it") from error


def _read(
    folder: Place,
    layout: str,
    unet: UNetConfig,
    what: str,
    read_folder: Callable[[Path, str], Corpus],
) -> Corpus:
    """A dataset, or else a folder of arrays; `layout` is not of our own datasets."""
    if dataset.is_own(folder):
        found = dataset.read_dataset(folder)
    elif stored.is_dataset(folder):
        fitting.refuse_latents(tensors.latent_shape(folder, layout), unet, what, layout)
        found = tensors.read_tensors(folder, layout)
    elif places.is_url(folder):
        raise InputError(
            f"{folder}: no dataset there, as dataset_info.json is missing; arrays of a bucket must "
            "be copied, or given by the folder that it is mounted at"
        )
    else:
        fitting.refuse_stored(folder, unet, what, layout)
        found = read_folder(folder, layout)
    fitting.refuse_unfit(found, unet, what, layout)
    return found


def _heard(config: Any, corpus: Corpus, queries: Corpus) -> tuple[Pooled, Pooled]:
    """The pooled log-mels of queries and corpus; queries that are tracks have their tracks'."""
    tracks = log_mels(places.place(config.corpus))
    own = by_unlearning.own_rows(corpus, queries).keys() & tracks.keys()
    asked = dict(log_mels(places.place(config.queries))) if config.queries else {}
    return asked | {name: tracks[name] for name in own}, tracks


def log_mels(folder: Place) -> Pooled:
    """The pooled log-mels of a dataset or a folder of arrays, by id."""
    if dataset.is_own(folder):
        return dataset.read_log_mels(folder)
    return (tensors.read_log_mels if stored.is_dataset(folder) else read_log_mels)(folder)


def _queries(config: Any, corpus: Corpus, tracks: Tracks, unet: UNetConfig) -> Corpus:
    """The queries: those of a folder, and rows of the corpus by their ids or their track's."""
    found = []
    if config.queries:
        folder = places.place(config.queries)
        found.append(_read(folder, config.layout, unet, "queries", read_queries))
        if stored.is_dataset(folder):
            _refuse_parts(folder, found[0])
    if config.query_ids:
        found.append(_named(config, corpus, tracks))
    return examples.in_memory(found[0] if len(found) == 1 else examples.joined(*found))


def _named(config: Any, corpus: Corpus, tracks: Tracks) -> Corpus:
    """Rows of the corpus by the ids that the card gives."""
    wanted = listed(config.query_ids)
    if odd := [name for name in wanted if not isinstance(name, str)]:
        raise InputError(f"query_ids: {odd[0]!r} is no id; give strings")
    if not wanted:
        raise InputError(f"query_ids = {config.query_ids!r} names no track; give one at least")
    rows = _rows_named(wanted, corpus, tracks)
    if len(set(rows)) < len(rows):
        raise InputError(f"query_ids = {wanted} name a track twice; give each once")
    for row in rows:
        if QUERY_FRAMES in corpus.metadata[row]:
            raise InputError(
                f"the corpus's metadata give query_frames for {corpus.ids[row]!r}; they count for "
                "queries only, so put that track into a folder and give --config.queries"
            )
    return examples.take(corpus, np.array(rows, np.int64))


def _rows_named(wanted: list[str], corpus: Corpus, tracks: Tracks) -> list[int]:
    """The rows of the corpus by their own ids, or by that of a track that has one row."""
    units: dict[str, list[int]] = {}
    for row, track in enumerate(tracks.of_unit.tolist()):
        units.setdefault(tracks.ids[track], []).append(row)
    units |= {name: [row] for row, name in enumerate(corpus.ids)}
    for name in wanted:
        if name not in units:
            near = difflib.get_close_matches(name, units, _SHOWN) or corpus.ids[:_SHOWN]
            raise InputError(
                f"query_ids: the corpus has no track {name!r}; its ids look like {list(near)}"
            )
        if len(units[name]) > 1:
            ids = [corpus.ids[row] for row in units[name]]
            raise InputError(
                f"query_ids: {name!r} is a track of {len(ids)} windows and captions, and a query "
                f"is one of them; choose among {ids}"
            )
    return [units[name][0] for name in wanted]


def _refuse_parts(folder: Place, queries: Corpus) -> None:
    """A dataset's masks are not cut, so a part of its rows cannot be asked about."""
    for name, metadata in zip(queries.ids, queries.metadata, strict=True):
        if metadata.get(QUERY_FRAMES) is not None:
            raise InputError(
                f"{folder}: the metadata give {QUERY_FRAMES} for {name!r}, but a dataset's rows "
                "are asked about as a whole; give that query as a folder of arrays"
            )


def _never(params: Any, example: Any, t: jax.Array, noise: jax.Array) -> Any:
    """Stands for the network where only shapes are known."""
    raise AssertionError("a model of shapes has no terms")
