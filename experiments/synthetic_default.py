"""A model and its corpus where none is given: made once, written as the folders that users have."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.progress import Progress
from tda_jax.artifact import claim
from tda_jax.attribution.table import Table
from tda_jax.corpus.arrays import save_arrays
from tda_jax.errors import InputError
from tda_jax.evaluation.ranking import auc
from tda_jax.evaluation.small_unet import SmallUNet, small_unet
from tda_jax.evaluation.synthetic import mates, synthetic_corpus
from tda_jax.examples import Corpus, in_memory, take
from tda_jax.models.denoiser import predict_fn
from tda_jax.models.export import save_pipeline
from tda_jax.models.folders import SCHEDULER
from tda_jax.models.pretrained import Component, Pipeline, Record
from tda_jax.models.unet_config import UNetConfig
from tda_jax.training.denoiser import fit
from tda_jax.training.loop import Recipe

_CORPUS = ("seed", "works", "variants", "captions", "held_out", "unseen_works")
_TRAINING = ("seed", "steps", "batch", "learning_rate")
_CLASS = "UNet2DConditionModel"
_SHOWS = 100  # updates between two signs of progress


def make_corpus(folder: Path, settings: Any) -> Path:
    """Makes the corpus, unless it is there.

    Args:
        folder: where `corpus/`, `model/` and what they are made from lie.
        settings: the card's `synthetic`.

    Returns:
        The corpus's folder.

    Raises:
        InputError: the folder is of other settings; a setting is out of range.
    """
    recipe = {name: settings[name] for name in dict.fromkeys((*_CORPUS, *_TRAINING))}
    corpus = synthetic_corpus(**{name: settings[name] for name in _CORPUS})
    _refuse_training(recipe, int(corpus.members.sum()))
    remedy = "Give another --config.workdir, or delete that folder to make it again"
    claim(folder / "recipe.json", recipe, remedy)
    if not (folder / "corpus").exists():
        _save_whole(folder / "corpus", corpus)
    return folder / "corpus"


def make_model(folder: Path, settings: Any, corpus: Corpus, progress: Progress) -> Path:
    """Trains the model on the members of the corpus, unless it is there.

    Args:
        folder: that `make_corpus` was given.
        settings: the card's `synthetic`.
        corpus: what `make_corpus` wrote.
        progress: told of updates done.

    Returns:
        The pipeline's folder.
    """
    if not (folder / "model").exists():
        save_pipeline(folder / "model", _trained(corpus, settings, progress))
    return folder / "model"


def unet_config(settings: Any) -> UNetConfig:
    """The settings of the UNet that `make_model` trains."""
    return small_unet(settings.seed).module.config


def relations(query: str, table: Table, corpus: Corpus) -> dict[str, float]:
    """How well a table tells a query's relatives, caption-mates and members from other tracks.

    Args:
        query: the id of a track of the corpus, which is left out of every set.
        table: its scores.
        corpus: with `work` and `caption` in its metadata.

    Returns:
        Areas under the curve, 0.5 by chance: for "same work" and "same caption", members that
        share just that with the query against members that share neither; for "members against
        decoys" all of them; for "members against decoys of the work" those of the query's work
        under other captions. Nan where a set is empty.
    """
    score = np.empty(len(corpus.ids))
    score[table.order] = table.columns["score"]
    others = np.array([name != query for name in corpus.ids])
    work, caption = (mates(corpus, query, factor) for factor in ("work", "caption"))
    member, neither = corpus.members & others, corpus.members & others & ~work & ~caption
    sets = {
        "same work": (member & work & ~caption, neither),
        "same caption": (member & caption & ~work, neither),
        "members against decoys": (member, others & ~corpus.members),
        "members against decoys of the work": (
            member & work & ~caption,
            ~corpus.members & others & work & ~caption,
        ),
    }
    return {name: auc(score[better], score[worse]) for name, (better, worse) in sets.items()}


def _refuse_training(recipe: dict[str, Any], members: int) -> None:
    """What `fit` would refuse only after the corpus was written."""
    if recipe["steps"] < 1:
        raise InputError(f"synthetic.steps = {recipe['steps']}; give 1 at least")
    if not 1 <= recipe["batch"] <= members:
        raise InputError(f"synthetic.batch = {recipe['batch']}; give 1 to {members}, the members")
    if not 0 < recipe["learning_rate"] < np.inf:
        raise InputError(
            f"synthetic.learning_rate = {recipe['learning_rate']}; give a finite number above 0"
        )


def _save_whole(folder: Path, corpus: Corpus) -> None:
    """Writes the corpus; the folder is there as a whole or not at all."""
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part.", dir=folder.parent))
    try:
        save_arrays(part, corpus)
        part.chmod(0o755)  # mkdtemp's is for its owner only
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _trained(corpus: Corpus, settings: Any, progress: Progress) -> Pipeline:
    made, steps = small_unet(settings.seed), settings.steps
    progress("training", 0, steps)
    fitted = fit(
        predict_fn(made.module),
        made.schedule,
        made.params,
        in_memory(take(corpus, np.flatnonzero(corpus.members))).examples,
        Recipe(steps, settings.batch, settings.learning_rate, settings.seed),
        callback=lambda done, _: progress("training", done, steps),
        callback_steps=sorted({*range(_SHOWS, steps + 1, _SHOWS), steps}),
    )
    return _pipeline(made, jax.block_until_ready(fitted.params))


def _pipeline(made: SmallUNet, params: Any) -> Pipeline:
    record = Record(_CLASS, "unet", "unstated", 0, "", ())
    unet = Component(made.module, params, dict(made.groups), _config(made.module.config), record)
    index = {
        "_class_name": "StableDiffusionPipeline",
        SCHEDULER: ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", _CLASS],
    }
    return Pipeline({"unet": unet}, made.schedule, index, {})


def _config(c: UNetConfig) -> dict[str, Any]:
    """The config.json from which `unet_config` reads these settings of a text UNet."""
    return {
        "_class_name": _CLASS,
        "in_channels": c.in_channels,
        "out_channels": c.out_channels,
        "down_block_types": list(c.down_block_types),
        "up_block_types": list(c.up_block_types),
        "mid_block_type": "UNetMidBlock2DCrossAttn" if c.mid_attention else None,
        "block_out_channels": list(c.block_out_channels),
        "layers_per_block": list(c.layers_per_block),
        "transformer_layers_per_block": list(c.transformer_layers),
        "attention_head_dim": list(c.heads),
        "cross_attention_dim": c.text_dim,
        "norm_num_groups": c.norm_num_groups,
        "norm_eps": c.norm_eps,
        "use_linear_projection": c.use_linear_projection,
        "flip_sin_to_cos": c.flip_sin_to_cos,
        "freq_shift": c.freq_shift,
    }
