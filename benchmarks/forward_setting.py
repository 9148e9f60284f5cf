"""The setting that both sides of `benchmarks.forward` share: the published AudioLDM-s UNet."""

HEIGHT, WIDTH, CHANNELS, CLASS_DIM = 256, 16, 8, 512
_WIDTHS = [128, 256, 384, 640]
CONFIG = {
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "block_out_channels": _WIDTHS,
    "cross_attention_dim": _WIDTHS,
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 3,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3 + ["UpBlock2D"],
    "attention_head_dim": 8,
    "class_embed_type": "simple_projection",
    "projection_class_embeddings_input_dim": CLASS_DIM,
    "class_embeddings_concat": True,
}

# XLA's count for the architecture as it is written down (upsample, then convolve), one example;
# products with padding do not count. Ours does 3 % fewer; rates are stated for these, both sides.
FLOP_PER_EXAMPLE = 97.51e9
