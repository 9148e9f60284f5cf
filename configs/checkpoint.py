"""Run card: check a checkpoint folder.

Source: the diffusers pipeline layout (model_index.json, one folder for each component).
Command: python -m experiments.checkpoint --config=configs/checkpoint.py --config.folder=FOLDER
Time: seconds; a full AudioLDM-s UNet 3 s from torch weights, 2 s from the converted copy.
Result: one line for each component with its tensors, parameters, groups and fingerprint; an error
that names file, value and remedy if anything does not fit.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings, each with its default."""
    config = ConfigDict()
    config.folder = ""  # the pipeline; without one, a small random one is made in workdir
    config.workdir = "checkpoint_check"
    config.ema = True  # averaged weights where the folder holds them
    config.variant = ""  # diffusers' file variant, such as fp16
    config.loras = ConfigDict(convert_dict=False)  # file → strength, merged into the unet
    config.cache = ""  # folder of converted copies: a quicker second start
    config.export = ""  # a new folder to write the pipeline to, in diffusers' layout
    return config
