"""A small AudioLDM with random weights in diffusers' layout: a pipeline where there is none."""

from pathlib import Path
from typing import Any

from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.models.export import save_pipeline
from tda_jax.models.families import FAMILIES, initialise
from tda_jax.models.pretrained import Component, Pipeline, Record

_WIDTHS = [32, 64, 96]
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": (
        "UNet2DConditionModel",
        {
            "_class_name": "UNet2DConditionModel",
            "in_channels": 8,
            "out_channels": 8,
            "block_out_channels": _WIDTHS,
            "cross_attention_dim": _WIDTHS,
            "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
            "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
            "attention_head_dim": 4,
            "norm_num_groups": 16,
            "class_embed_type": "simple_projection",
            "projection_class_embeddings_input_dim": 512,
            "class_embeddings_concat": True,
        },
    ),
    "vae": (
        "AutoencoderKL",
        {
            "_class_name": "AutoencoderKL",
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": [16, 32, 64],
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "latent_channels": 8,
            "norm_num_groups": 16,
            "scaling_factor": 0.9,
        },
    ),
    "vocoder": (
        "SpeechT5HifiGan",
        {
            "architectures": ["SpeechT5HifiGan"],
            "model_in_dim": 64,
            "upsample_initial_channel": 64,
            "upsample_rates": [5, 4, 2, 2, 2],
            "upsample_kernel_sizes": [16, 16, 8, 4, 4],
            "normalize_before": False,
        },
    ),
}
AUDIOLDM_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""AudioLDM's noise process, as its scheduler_config.json gives it."""


def _component(name: str, seed: int) -> Component:
    class_name, config = _CONFIGS[name]
    family = FAMILIES[class_name]
    settings = family.read_config(config, name)
    params = initialise(family, settings, seed)
    record = Record(class_name, name, "raw", 0, "", ())
    return Component(family.build(settings), params, family.groups(settings), config, record)


def write_random_pipeline(folder: str | Path, seed: int) -> None:
    """Writes the pipeline to a new folder.

    Raises:
      InputError: the folder exists.
    """
    components = {name: _component(name, seed) for name in _CONFIGS}
    libraries = {name: FAMILIES[c.record.class_name].library for name, c in components.items()}
    index = {
        "_class_name": "AudioLDMPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        **{name: [libraries[name], c.record.class_name] for name, c in components.items()},
    }
    save_pipeline(
        folder, Pipeline(components, schedule_from_config(AUDIOLDM_SCHEDULER, "default"), index, {})
    )
