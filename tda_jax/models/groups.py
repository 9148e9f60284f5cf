"""Named groups of a denoiser's parameters: which layers an unlearning step may move.

Which group attributes best differs between papers: Wang et al. 2024 (arXiv 2406.09408) move
cross-attention keys and values, Choi et al. 2025 (arXiv 2506.18312) all transformer layers.
"""

from tda_jax.errors import InputError
from tda_jax.models.unet_config import UNetConfig

# Every UNet: the transformers proper, without the spatial norm and projections around them.
_COMMON = {"transformer": r".*/transformer_blocks/.*", "all": r".*"}

# With text: the first attention of a block looks at the map itself, the second at the text.
_TEXT_UNET = {
    "cross_attention_kv": r".*/attn2/to_[kv]/.*",
    "cross_attention": r".*/attn2/.*",
    "self_attention": r".*/attn1/.*",
} | _COMMON

# Without text (AudioLDM, MusicLDM): both attentions look at the map itself.
_CLASS_UNET = {"self_attention": r".*/attn[12]/.*"} | _COMMON


def unet_groups(config: UNetConfig) -> dict[str, str]:
    """The groups that a UNet has: name → pattern for `tda_jax.params.split`."""
    return dict(_CLASS_UNET if config.text_dim is None else _TEXT_UNET)


def group_pattern(groups: dict[str, str], name: str) -> str:
    """The pattern of a group.

    Raises:
      InputError: the model has no such group; the message lists those it has.
    """
    if name not in groups:
        why = ""
        if name.startswith("cross_attention"):
            why = " (this model has no text cross-attention: its condition is a class embedding)"
        raise InputError(
            f"this model has no parameter group {name!r}{why}; choose one of {sorted(groups)}"
        )
    return groups[name]
