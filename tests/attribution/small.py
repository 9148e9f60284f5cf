"""A small Stable Diffusion UNet with random weights, and latents and text for it."""

import numpy as np

from tda_jax import examples
from tda_jax.attribution.unet import unet_model
from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.models import families, pretrained
from tda_jax.models.denoiser import Condition
from tests.models import cases

CASE = cases.SMALL["sd"]
TOKENS = 7


def config(case=CASE):
    return families.FAMILIES[case.class_name].read_config(case.config, "test")


def model(seed=0, case=CASE):
    family = families.FAMILIES[case.class_name]
    unet = pretrained.Component(
        family.build(config(case)),
        families.initialise(family, config(case), seed),
        family.groups(config(case)),
        case.config,
        pretrained.Record(case.class_name, "test", "raw", 0, f"small {seed}", ()),
    )
    return unet_model(unet, schedule_from_config(cases.AUDIOLDM_NOISE, "test"))


def corpus(n, seed=0, case=CASE):
    rng = np.random.default_rng([seed, 2])
    shape = (n, *case.size, config(case).in_channels)
    latents = rng.standard_normal(shape).astype(np.float32)
    text = rng.standard_normal((n, TOKENS, config(case).text_dim)).astype(np.float32)
    masks = np.ones(shape[:2], np.float32)
    masks[::4, shape[1] // 2 :] = 0
    ids = [f"piece {i}" for i in range(n)]
    return examples.corpus_of(ids, latents, Condition(text=text), masks)
