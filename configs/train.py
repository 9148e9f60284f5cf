"""Run card: train a small text-to-music model from a folder of audio.

Source: latent diffusion (arXiv 2112.10752) on log-mels as AudioLDM (arXiv 2301.12503): a VAE, a
    text encoder by contrast of captions and sounds, then the denoiser on the VAE's latents.
Command: python -m experiments.train --config=configs/train.py --config.audio=FOLDER
    --config.workdir=DIR
Time: 4.2 minutes on 2 cores for the 96 training tracks of the demo. It goes on where it was killed.
Result: WORKDIR/model, a diffusers folder; WORKDIR/encoded/dataset, what the denoiser was trained
    on and what `experiments.attribute` scores; WORKDIR/summary.json with the losses. Tracks whose
    split is not "train" are encoded as decoys, and no part is trained on them.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings, each with its default."""
    config = ConfigDict()
    config.audio = ""  # a folder of audio with metadata.jsonl
    config.workdir = "trained"
    config.kind = "text"  # Stable Diffusion's, which attends to the text; or class, AudioLDM's
    config.seconds = 5.12  # length of a window, one of each file
    config.seed = 0
    config.every = 100  # updates from one checkpoint to the next
    config.devices = 0  # for encoding; 0 for all of this process
    config.sizes = ConfigDict()
    config.sizes.vae = (8, 16, 32, 64)
    config.sizes.latent = 16
    config.sizes.unet = (16, 32, 64)
    config.sizes.text = 32
    config.sizes.layers = 2
    config.sizes.tokens = 24
    config.vae = _recipe(800, 8, 5e-3)
    config.vae.crop = 64  # mel frames of a training example
    config.vae.divergence = 1e-4
    config.text = _recipe(300, 32, 2e-3)
    config.denoiser = _recipe(800, 16, 2e-3)
    config.denoiser.dropout = 0.1  # of the caption, for guidance
    return config.lock()


def _recipe(steps: int, batch: int, learning_rate: float) -> ConfigDict:
    recipe = ConfigDict()
    recipe.steps = steps
    recipe.batch = batch
    recipe.learning_rate = learning_rate
    return recipe
