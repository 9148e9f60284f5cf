"""Run card: before hours are spent, whether checkpoint, corpus, scaling and conditions fit.

Source: no paper; each check is a test over tracks (tda_jax/evaluation/preflight.py).
Command: python -m experiments.preflight --config=configs/preflight.py --config.model=FOLDER
    --config.corpus=FOLDER --config.workdir=DIR
Time: 3 passes through the network for each of 20 draws of 2 · `tracks` tracks.
Result: WORKDIR/preflight.json with a verdict and its checks, WORKDIR/sample.wav to listen to: one
    track of the corpus, as the model's VAE gives it back. Status 1 where a check failed.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings, each with its default."""
    config = ConfigDict()
    config.model = ""  # a diffusers pipeline
    config.corpus = ""  # dataset or arrays of tracks, decoys among them
    config.layout = "HWC"  # of arrays' latents: HWC or CHW
    config.workdir = "preflight"
    config.ema = True  # averaged weights where the folder holds them
    config.variant = ""  # diffusers' file variant, such as fp16
    config.loras = ConfigDict(convert_dict=False)  # file → strength, merged into the unet
    config.cache = ""  # converted weights
    config.tracks = 48  # members at most, and as many decoys
    config.strata = 20
    config.seed = 0
    config.devices = 0  # 0 for all of this process
    config.batch = 16  # latents in the network at a time, on one device
    return config.lock()
