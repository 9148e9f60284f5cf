"""The worlds that `experiments.truth` retrains: from a card to tracks, network and start."""

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.progress import Progress
from tda_jax.errors import InputError
from tda_jax.evaluation.network import Network
from tda_jax.evaluation.small_unet import small_unet
from tda_jax.evaluation.synthetic import synthetic_corpus
from tda_jax.evaluation.truth_plan import World
from tda_jax.examples import Corpus, take
from tda_jax.models.denoiser import predict_fn
from tda_jax.training.denoiser import fit
from tda_jax.training.loop import Recipe

_OTHER = 1_000_000  # seeds apart, so that the start's corpus shares no work or caption


def synthetic(config: ConfigDict, progress: Progress) -> World:
    """Latents of works crossed with captions, and the small UNet.

    Args:
        config: the card.
        progress: told of updates, where a common start is trained.

    Raises:
        InputError: a number is out of range.
    """
    if config.scale < 1 or config.start_updates < 0:
        raise InputError(
            f"scale = {config.scale} and start_updates = {config.start_updates}; give 1 and 0 at "
            "least"
        )
    made = small_unet(config.seed)
    network = Network(predict_fn(made.module), made.schedule, made.params, made.groups)
    if config.start_updates:
        network = network._replace(params=_start(config, network, progress))
    return World(network, repr(made.module.config), _corpus(config, config.seed))


def _corpus(config: ConfigDict, seed: int) -> Corpus:
    sizes = tuple(config.variants) * config.scale
    unseen = config.unseen_works * config.scale
    return synthetic_corpus(seed, len(sizes), sizes, config.captions, config.held_out, unseen)


def _start(config: ConfigDict, network: Network, progress: Progress) -> dict:
    """Parameters trained on another corpus: where every model is fine-tuned from."""
    other, steps = _corpus(config, config.seed + _OTHER), config.start_updates
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
