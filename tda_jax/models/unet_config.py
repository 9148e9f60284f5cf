"""Settings of diffusers' `UNet2DConditionModel`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tda_jax.kinds import (
    BOOL,
    COUNT,
    COUNT_OR_COUNTS,
    COUNTS,
    NUMBER,
    POSITIVE,
    STR,
    STRS,
    Kind,
    optional,
)
from tda_jax.models.config_keys import per_block, read_keys, require


@dataclass(frozen=True)
class UNetConfig:
    """Settings of `UNet2DConditionModel`, one value a block where diffusers allows a single one.

    `heads` is diffusers' `attention_head_dim`, which is the *number* of heads for this class.
    `text_dim` is None where the second attention of a block is self-attention, as in AudioLDM and
    MusicLDM (`cross_attention_dim` lists the blocks' own widths), else the width of the text.
    """

    in_channels: int
    out_channels: int
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    block_out_channels: tuple[int, ...]
    layers_per_block: tuple[int, ...]
    transformer_layers: tuple[int, ...]
    heads: tuple[int, ...]
    text_dim: int | None
    mid_attention: bool
    norm_num_groups: int
    norm_eps: float
    use_linear_projection: bool
    flip_sin_to_cos: bool
    freq_shift: float
    class_input_dim: int | None
    class_concat: bool


_UNET_KINDS: dict[str, Kind] = {
    "in_channels": COUNT,
    "out_channels": COUNT,
    "down_block_types": STRS,
    "up_block_types": STRS,
    "mid_block_type": optional(STR),
    "block_out_channels": COUNTS,
    "layers_per_block": COUNT_OR_COUNTS,
    "transformer_layers_per_block": COUNT_OR_COUNTS,
    "attention_head_dim": COUNT_OR_COUNTS,
    "cross_attention_dim": COUNT_OR_COUNTS,
    "norm_num_groups": COUNT,
    "norm_eps": POSITIVE,
    "use_linear_projection": BOOL,
    "flip_sin_to_cos": BOOL,
    "freq_shift": NUMBER,
    "class_embed_type": optional(STR),
    "class_embeddings_concat": BOOL,
    "projection_class_embeddings_input_dim": optional(COUNT),
}

_UNET_FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "only_cross_attention": (False, None),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1, 1.0),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "addition_embed_type": (None,),
    "addition_time_embed_dim": (None,),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1, 1.0),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
}

# Dropout is never applied to a loss of attribution; softmax is taken in float32 in any case.
_UNET_IGNORED = frozenset(
    {"sample_size", "dropout", "upcast_attention", "addition_embed_type_num_heads"}
)

_UNET_DEFAULTS: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "cross_attention_dim": 1280,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "use_linear_projection": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "projection_class_embeddings_input_dim": None,
}

_ATTENTION_BLOCKS = {"CrossAttnDownBlock2D", "CrossAttnUpBlock2D"}
DOWN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D")
UP_BLOCKS = ("UpBlock2D", "CrossAttnUpBlock2D")


def has_attention(block_type: str) -> bool:
    """Whether a UNet block of this diffusers class holds transformers."""
    return block_type in _ATTENTION_BLOCKS


def _text_dim(c: Mapping[str, Any], source: str) -> int | None:
    """The width of the text, or None where diffusers would put self-attention in its place."""
    dim = c["cross_attention_dim"]
    if isinstance(dim, int):
        return dim
    if dim == c["block_out_channels"]:
        return None
    require(
        len(set(dim)) == 1,
        source,
        "cross_attention_dim",
        dim,
        "give one width of text for all blocks, or list block_out_channels for self-attention",
    )
    return dim[0]


def _check_unet(c: Mapping[str, Any], source: str) -> None:
    """Settings that must fit each other."""
    blocks = len(c["block_out_channels"])
    for key, known in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
        per_block(c[key], blocks, source, key)
        unknown = sorted(set(c[key]) - set(known))
        require(not unknown, source, key, c[key], f"{unknown} is not ported, only {known} are")
    require(
        c["mid_block_type"] in (None, "UNetMidBlock2DCrossAttn"),
        source,
        "mid_block_type",
        c["mid_block_type"],
        "only UNetMidBlock2DCrossAttn or null is ported",
    )
    require(
        c["class_embed_type"] in (None, "simple_projection"),
        source,
        "class_embed_type",
        c["class_embed_type"],
        "only simple_projection or null is ported",
    )
    if c["class_embed_type"] is not None:
        dim = c["projection_class_embeddings_input_dim"]
        key = "projection_class_embeddings_input_dim"
        require(dim is not None, source, key, dim, "simple_projection needs the embedding's width")
    groups = c["norm_num_groups"]
    for width in c["block_out_channels"]:
        require(
            width % groups == 0, source, "norm_num_groups", groups, f"it must divide width {width}"
        )


def unet_config(config: Mapping[str, Any], source: str = "the UNet's config") -> UNetConfig:
    """Reads the config of diffusers' `UNet2DConditionModel`.

    Raises:
      InputError: a key of the wrong kind, not ported or unknown, or keys that do not fit.
    """
    c = _UNET_DEFAULTS | read_keys(config, source, _UNET_KINDS, _UNET_FIXED, _UNET_IGNORED)
    _check_unet(c, source)
    blocks = len(c["block_out_channels"])
    heads = per_block(c["attention_head_dim"], blocks, source, "attention_head_dim")
    for width, n in zip(c["block_out_channels"], heads, strict=True):
        require(
            width % n == 0,
            source,
            "attention_head_dim",
            n,
            f"it counts heads and must divide width {width}",
        )
    layers = per_block(c["layers_per_block"], blocks, source, "layers_per_block")
    depth = per_block(
        c["transformer_layers_per_block"], blocks, source, "transformer_layers_per_block"
    )
    same = ("in_channels", "out_channels", "down_block_types", "up_block_types", "norm_num_groups")
    same += ("block_out_channels", "norm_eps", "use_linear_projection", "flip_sin_to_cos")
    return UNetConfig(
        **{key: c[key] for key in same},
        layers_per_block=layers,
        transformer_layers=depth,
        heads=heads,
        text_dim=_text_dim(c, source),
        mid_attention=c["mid_block_type"] is not None,
        freq_shift=float(c["freq_shift"]),
        class_input_dim=c["projection_class_embeddings_input_dim"]
        if c["class_embed_type"]
        else None,
        class_concat=c["class_embeddings_concat"],
    )
