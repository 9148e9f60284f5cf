"""The worlds that `experiments.truth` retrains: from a card to tracks, network and start."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from pyarrow import parquet

from configs.demo import get_config as demo_config
from experiments.demo import run as run_demo
from experiments.progress import Progress
from experiments.train import sizes_of
from tda_jax.attribution.workdir import query_folder
from tda_jax.corpus import dataset
from tda_jax.corpus.arrays import read_log_mels, read_queries
from tda_jax.demo.music import read_provenance
from tda_jax.errors import InputError
from tda_jax.evaluation.network import Network
from tda_jax.evaluation.small_unet import small_unet
from tda_jax.evaluation.synthetic import synthetic_corpus
from tda_jax.evaluation.truth_plan import World
from tda_jax.examples import Corpus, in_memory, joined, take
from tda_jax.models import captions
from tda_jax.models.denoiser import predict_fn
from tda_jax.models.folders import read_json
from tda_jax.models.pretrained import load_pipeline
from tda_jax.training import parts
from tda_jax.training.denoiser import Dropout, fit
from tda_jax.training.loop import Recipe

DEMO = "the demo's scores"
_OTHER = 1_000_000  # seeds apart, so that the start's corpus shares no work or caption


def synthetic(config: ConfigDict, progress: Progress) -> World:
    """Latents of works crossed with captions, and the small UNet.

    Args:
        config: the card.
        progress: told of updates, where a common start is trained.

    Raises:
        InputError: a number is out of range.
    """
    if config.synthetic.scale < 1 or config.synthetic.start_updates < 0:
        raise InputError(
            f"synthetic.scale = {config.synthetic.scale} and synthetic.start_updates = "
            f"{config.synthetic.start_updates}; give 1 and 0 at least"
        )
    made = small_unet(config.seed, "v_prediction")  # its pieces are like its tracks
    network = Network(predict_fn(made.module), made.schedule, made.params, made.groups)
    if config.synthetic.start_updates:
        network = network._replace(params=_start(config, network, progress))
    corpus = _corpus(config, config.seed)
    return World(network, repr(made.module.config), corpus, made.params)


def demo(config: ConfigDict, progress: Progress) -> World:
    """The demo's music and network, with its own queries and how it scored them.

    Args:
        config: the card. The demo of it is run in WORKDIR/demo, where it is not there yet.
        progress: told of the demo's work.

    Raises:
        InputError: a setting of the demo cannot be used, or its folder holds another.
    """
    place, card = Path(config.workdir) / "demo", demo_card(config)
    run_demo(card, progress)
    pipeline = load_pipeline(place / "trained" / "model")
    unet = parts.unet(config.demo.kind, sizes_of(card.train), config.seed)
    tokenizer = captions.load_tokenizer(place / "trained" / "model" / "tokenizer")
    empty = captions.conditions(pipeline.components["text_encoder"], tokenizer, [""])
    dropout = Dropout(jax.tree.map(lambda x: x[0], empty), card.train.denoiser.dropout)
    encoded, made = place / "trained" / "encoded" / "dataset", place / "generated" / "queries"
    works = {n: p.work for n, p in read_provenance(place / "provenance.jsonl").items()}
    corpus = _told(in_memory(dataset.read_dataset(encoded)), lambda name, _: {"work": works[name]})
    asked = [query["id"] for query in read_json(place / "attributed" / "summary.json")["queries"]]
    pieces = read_queries(made, "HWC")
    tracks = take(corpus, [corpus.ids.index(name) for name in asked if name in corpus.ids])
    given = joined(_told(pieces, _prompt), _told(tracks, lambda *_: {"kind": "track"}))
    return World(
        Network(predict_fn(unet.module), pipeline.schedule, unet.params, dict(unet.groups)),
        json.dumps(unet.config, sort_keys=True),
        corpus,
        unet.params,
        dropout,
        {**dataset.read_log_mels(encoded), **read_log_mels(made)},
        given,
        {DEMO: {name: _scores(place, name, corpus.ids) for name in given.ids}},
    )


def demo_card(config: ConfigDict) -> ConfigDict:
    """The demo's card, with the denoiser that is retrained."""
    card = demo_config().copy_and_resolve_references().unlock()
    card.workdir, card.seed = str(Path(config.workdir) / "demo"), config.seed
    card.works, card.train.kind = config.demo.works, config.demo.kind
    card.train.seconds, card.train.sizes.unet = config.demo.seconds, config.demo.unet
    card.queries, card.pieces = config.demo.queries, config.demo.pieces
    own = card.train.denoiser
    own.steps, own.batch = config.levels[-1], config.batch_tracks
    own.learning_rate = config.learning_rate
    return card.lock()


def _told(corpus: Corpus, more: Callable[[str, Mapping], Mapping]) -> Corpus:
    """The corpus with more said of each row."""
    pairs = zip(corpus.ids, corpus.metadata, strict=True)
    return corpus._replace(metadata=tuple({**m, **more(name, m)} for name, m in pairs))


def _prompt(_: str, metadata: Mapping) -> dict:
    return {"caption": metadata["prompt"], "kind": "generated"}


def _scores(place: Path, query: str, ids: Sequence[str]) -> np.ndarray:
    """How the demo scored a query, in the order of some ids."""
    path = query_folder(place / "attributed", query) / "scores.parquet"
    table = parquet.read_table(path, columns=["id", "score"]).to_pydict()
    by_id = dict(zip(table["id"], table["score"], strict=True))
    return np.array([by_id[name] for name in ids], np.float64)


def _corpus(config: ConfigDict, seed: int) -> Corpus:
    own = config.synthetic
    sizes, unseen = tuple(own.variants) * own.scale, own.unseen_works * own.scale
    return synthetic_corpus(seed, len(sizes), sizes, own.captions, own.held_out, unseen)


def _start(config: ConfigDict, network: Network, progress: Progress) -> dict:
    """Parameters trained on another corpus: where every model is fine-tuned from."""
    other, steps = _corpus(config, config.seed + _OTHER), config.synthetic.start_updates
    members = take(other, np.flatnonzero(other.members))
    shown = sorted({*range(100, steps, 100), steps})
    progress("training the start", 0, steps)
    trained = fit(
        network.predict,
        network.schedule,
        network.params,
        members.examples,
        Recipe(steps, config.batch_tracks, config.learning_rate, config.seed),
        callback=lambda done, _: progress("training the start", done, steps),
        callback_steps=shown,
    )
    return jax.tree.map(np.asarray, trained.params)
