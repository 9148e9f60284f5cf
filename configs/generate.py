"""Run card: generate pieces of music with a model, to listen to and to attribute.

Source: a diffusers folder of AudioLDM's kind, with DPM-Solver++ (arXiv 2211.01095) or DDIM
    (arXiv 2010.02502) and classifier-free guidance (arXiv 2207.12598).
Command: python -m experiments.generate --config=configs/generate.py --config.model=FOLDER
    --config.prompts="slow piano; fast drums" --config.workdir=DIR
Time: 2 passes through the network for each step and piece, 1 without guidance.
Result: WORKDIR/queries, the final latents with their conditions and what they were made by, for
    `experiments.attribute --config.queries=WORKDIR/queries`; WORKDIR/audio/ID.wav to listen to.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings, each with its default."""
    config = ConfigDict()
    config.model = ""  # a diffusers folder with unet, vae, text_encoder, tokenizer and scheduler
    config.prompts = ""  # with ";" between them, or a JSON list
    config.negative = ""  # prompt, for all of them
    config.workdir = "generated"
    config.seconds = 10.24  # of each piece
    config.sampler = "dpm"  # or ddim
    config.steps = 25
    config.guidance = 2.5  # 1 for none
    config.seed = 0
    config.ema = True  # averaged weights where the folder holds them
    config.tokens = 0  # of a prompt at most; 0 for what the tokenizer says
    config.batch = 4  # pieces at a time
    return config.lock()
