"""The models that tests compare with torch: configs in diffusers' own keys, and call sizes.

Small ones differ from each other in every setting that is ported; the full ones are the published
architectures.
"""

from typing import Any, NamedTuple


class Case(NamedTuple):
    class_name: str
    config: dict[str, Any]
    # (height, width) of a latent or an input; (frames,) of a vocoder's mel; (tokens,) of captions.
    size: tuple[int, ...]
    batch: int = 2
    tokens: int | None = None  # of text
    masked: bool = False  # whether the text has a padding mask


def unet(size, tokens=None, masked=False, **config):
    return Case("UNet2DConditionModel", config, size, 2, tokens, masked)


def down(*kinds):
    return ["CrossAttnDownBlock2D" if k == "a" else "DownBlock2D" for k in kinds]


def up(*kinds):
    return ["CrossAttnUpBlock2D" if k == "a" else "UpBlock2D" for k in kinds]


CLAP = {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 24}

SMALL = {
    # AudioLDM and MusicLDM in small: class embedding concatenated, self-attention twice.
    "audioldm": unet(
        (12, 4),
        block_out_channels=[16, 32, 48],
        down_block_types=down("-", "a", "a"),
        up_block_types=up("a", "a", "-"),
        cross_attention_dim=[16, 32, 48],
        in_channels=8,
        out_channels=8,
        attention_head_dim=4,
        norm_num_groups=8,
        class_embeddings_concat=True,
        **CLAP,
    ),
    "audioldm_odd": unet(
        (13, 5),
        block_out_channels=[16, 32, 48],
        down_block_types=down("-", "a", "a"),
        up_block_types=up("a", "a", "-"),
        cross_attention_dim=[16, 32, 48],
        attention_head_dim=8,
        norm_num_groups=8,
        class_embeddings_concat=True,
        **CLAP,
    ),
    "class_added": unet(
        (6, 4),
        block_out_channels=[16, 32],
        down_block_types=down("a", "-"),
        up_block_types=up("-", "a"),
        cross_attention_dim=[16, 32],
        attention_head_dim=4,
        norm_num_groups=4,
        layers_per_block=1,
        **CLAP,
    ),
    # Stable Diffusion 1.x in small: text cross-attention.
    "sd": unet(
        (8, 8),
        5,
        block_out_channels=[16, 32, 32],
        down_block_types=down("a", "a", "-"),
        up_block_types=up("-", "a", "a"),
        cross_attention_dim=20,
        attention_head_dim=8,
        norm_num_groups=8,
    ),
    "sd_masked_odd": unet(
        (7, 9),
        6,
        True,
        block_out_channels=[16, 32, 32],
        down_block_types=down("a", "a", "-"),
        up_block_types=up("-", "a", "a"),
        cross_attention_dim=20,
        attention_head_dim=2,
        norm_num_groups=8,
    ),
    # Stable Diffusion 2.x in small: linear projections, heads by block.
    "linear_heads": unet(
        (6, 6),
        3,
        block_out_channels=[16, 32],
        down_block_types=down("a", "a"),
        up_block_types=up("a", "a"),
        cross_attention_dim=[12, 12],
        attention_head_dim=[2, 4],
        norm_num_groups=8,
        use_linear_projection=True,
    ),
    "deep_uneven": unet(
        (9, 6),
        4,
        True,
        block_out_channels=[16, 16, 32],
        down_block_types=down("-", "a", "a"),
        up_block_types=up("a", "a", "-"),
        cross_attention_dim=8,
        attention_head_dim=[8, 4, 2],
        norm_num_groups=4,
        layers_per_block=[1, 2, 3],
        transformer_layers_per_block=[1, 3, 2],
    ),
    "sinus_first": unet(
        (5, 7),
        2,
        block_out_channels=[24, 24],
        down_block_types=down("a", "-"),
        up_block_types=up("-", "a"),
        cross_attention_dim=8,
        attention_head_dim=3,
        norm_num_groups=12,
        norm_eps=1e-3,
        flip_sin_to_cos=False,
        freq_shift=1,
        in_channels=5,
        out_channels=5,
    ),
    "no_mid": unet(
        (11, 3),
        2,
        block_out_channels=[16, 32, 32],
        down_block_types=down("-", "-", "-"),
        up_block_types=up("-", "-", "-"),
        mid_block_type=None,
        cross_attention_dim=8,
        norm_num_groups=16,
    ),
    "one_level": unet(
        (3, 5),
        2,
        block_out_channels=[16],
        down_block_types=down("a"),
        up_block_types=up("a"),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=16,
        layers_per_block=3,
    ),
    "vae_mel": Case(
        "AutoencoderKL",
        {
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": [16, 32, 32],
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "latent_channels": 8,
            "layers_per_block": 2,
            "norm_num_groups": 8,
            "scaling_factor": 0.9227914214134216,
        },
        (20, 8),
    ),
    "vae_image": Case(
        "AutoencoderKL",
        {
            "block_out_channels": [16, 16, 32, 32],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "latent_channels": 4,
            "norm_num_groups": 16,
        },
        (24, 16),
    ),
    "vae_odd": Case(
        "AutoencoderKL",
        {
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": [16, 24, 32],
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "latent_channels": 3,
            "norm_num_groups": 8,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "shift_factor": 0.1,
        },
        (21, 13),
    ),
    "hifigan": Case(
        "SpeechT5HifiGan",
        {
            "model_in_dim": 8,
            "upsample_initial_channel": 32,
            "upsample_rates": [5, 4, 2],
            "upsample_kernel_sizes": [16, 8, 4],
            "resblock_kernel_sizes": [3, 7],
            "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]],
            "normalize_before": False,
        },
        (11,),
    ),
    "hifigan_normalized": Case(
        "SpeechT5HifiGan",
        {
            "model_in_dim": 12,
            "upsample_initial_channel": 16,
            "upsample_rates": [4, 3],
            "upsample_kernel_sizes": [8, 7],
            "resblock_kernel_sizes": [3],
            "resblock_dilation_sizes": [[1, 3]],
            "leaky_relu_slope": 0.2,
            "normalize_before": True,
        },
        (6,),
    ),
    # Stable Diffusion 1.x: padding is end-of-text itself, and the config's eos_token_id is wrong.
    "clip_text": Case(
        "CLIPTextModel",
        {
            "vocab_size": 60,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 11,
            "hidden_act": "quick_gelu",
            "eos_token_id": 2,
        },
        (11,),
        3,
    ),
    # Stable Diffusion 2.x: the exact GELU; here end-of-text is not the highest id.
    "clip_text_gelu": Case(
        "CLIPTextModel",
        {
            "vocab_size": 40,
            "hidden_size": 16,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 12,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-3,
            "bos_token_id": 0,
            "eos_token_id": 7,
        },
        (9,),
        3,
    ),
    "clap_text": Case(
        "ClapTextModelWithProjection",
        {
            "vocab_size": 50,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "max_position_embeddings": 15,
            "type_vocab_size": 2,
            "projection_dim": 20,
        },
        (10,),
        4,
        masked=True,
    ),
}

_AUDIOLDM = {
    "sample_size": 128,
    "in_channels": 8,
    "out_channels": 8,
    "down_block_types": down("-", "a", "a", "a"),
    "up_block_types": up("a", "a", "a", "-"),
    "attention_head_dim": 8,
    "class_embed_type": "simple_projection",
    "projection_class_embeddings_input_dim": 512,
    "class_embeddings_concat": True,
}


def _audioldm(first):
    widths = [first, 2 * first, 3 * first, 5 * first]
    return _AUDIOLDM | {"block_out_channels": widths, "cross_attention_dim": widths}


FULL = {
    "audioldm_s": Case("UNet2DConditionModel", _audioldm(128), (256, 16), 1),
    "audioldm_m": Case("UNet2DConditionModel", _audioldm(192), (256, 16), 1),
    "audioldm_l": Case("UNet2DConditionModel", _audioldm(256), (256, 16), 1),
    "sd15": Case("UNet2DConditionModel", {"cross_attention_dim": 768}, (32, 32), 1, 77),
    "audioldm_vae": Case(
        "AutoencoderKL",
        {
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": [128, 256, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3,
            "latent_channels": 8,
            "layers_per_block": 2,
            "sample_size": 512,
            "scaling_factor": 0.9392935633659363,
        },
        (256, 64),
        1,
    ),
    "sd_vae": Case(
        "AutoencoderKL",
        {
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "layers_per_block": 2,
        },
        (128, 128),
        1,
    ),
    "hifigan_16k": Case(
        "SpeechT5HifiGan",
        {
            "model_in_dim": 64,
            "upsample_initial_channel": 1024,
            "upsample_rates": [5, 4, 2, 2, 2],
            "upsample_kernel_sizes": [16, 16, 8, 4, 4],
            "resblock_kernel_sizes": [3, 7, 11],
            "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
            "normalize_before": False,
        },
        (100,),
        1,
    ),
    # The text encoders of Stable Diffusion 1.5 and of AudioLDM.
    "clip_l": Case(
        "CLIPTextModel",
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "eos_token_id": 2,
        },
        (77,),
        2,
    ),
    "clap_roberta": Case("ClapTextModelWithProjection", {}, (40,), 2, masked=True),
}

AUDIOLDM_NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

# The cases whose ten sampling steps are compared too.
SAMPLED = ("audioldm_odd", "sd_masked_odd")


def wanted(name):
    """What a comparison of a small case covers."""
    return ("gradients", "samples") if name in SAMPLED else ("gradients",)


# Tensors and parameters of the published checkpoints.
FULL_COUNTS = {
    "audioldm_s": (690, 185_036_552),
    "audioldm_m": (690, 415_954_568),
    "audioldm_l": (690, 739_139_080),
    "sd15": (686, 859_520_964),
    "audioldm_vae": (204, 55_376_873),
    "sd_vae": (248, 83_653_863),
    "hifigan_16k": (196, 55_264_897),
    "clip_l": (196, 123_060_480),
    "clap_roberta": (203, 125_302_016),
}
