"""Settings of diffusers' `AutoencoderKL`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tda_jax.kinds import BOOL, COUNT, COUNTS, NUMBER, POSITIVE, STRS, Kind, optional
from tda_jax.models.config_keys import read_keys, require


@dataclass(frozen=True)
class VAEConfig:
    """Settings of `AutoencoderKL`.

    A latent is `scaling_factor · (z - shift_factor)`, z being a sample of the posterior.
    """

    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    norm_num_groups: int
    scaling_factor: float
    shift_factor: float
    use_quant_conv: bool
    use_post_quant_conv: bool
    mid_attention: bool

    @property
    def factor(self) -> int:
        """How many samples of the input, along each axis, one latent element stands for."""
        return 2 ** (len(self.block_out_channels) - 1)


_VAE_KINDS: dict[str, Kind] = {
    "in_channels": COUNT,
    "out_channels": COUNT,
    "down_block_types": STRS,
    "up_block_types": STRS,
    "block_out_channels": COUNTS,
    "layers_per_block": COUNT,
    "latent_channels": COUNT,
    "norm_num_groups": COUNT,
    "scaling_factor": POSITIVE,
    "shift_factor": optional(NUMBER),
    "use_quant_conv": BOOL,
    "use_post_quant_conv": BOOL,
    "mid_block_add_attention": BOOL,
}
_VAE_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
_VAE_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "latents_mean": (None,),
    "latents_std": (None,),
}


def vae_config(config: Mapping[str, Any], source: str = "the VAE's config") -> VAEConfig:
    """Reads the config of diffusers' `AutoencoderKL`.

    Raises:
      InputError: a key of the wrong kind, not ported or unknown, or keys that do not fit.
    """
    ignored = frozenset({"sample_size", "force_upcast"})
    c = _VAE_DEFAULTS | read_keys(config, source, _VAE_KINDS, _VAE_FIXED, ignored)
    blocks = len(c["block_out_channels"])
    for key, only in (("down", "DownEncoderBlock2D"), ("up", "UpDecoderBlock2D")):
        types = c[f"{key}_block_types"]
        require(
            types == (only,) * blocks,
            source,
            f"{key}_block_types",
            types,
            f"{blocks} blocks of {only}, one for each width, are what is ported",
        )
    for width in c["block_out_channels"]:
        groups = c["norm_num_groups"]
        require(
            width % groups == 0, source, "norm_num_groups", groups, f"it must divide width {width}"
        )
    return VAEConfig(
        shift_factor=float(c["shift_factor"] or 0.0),
        mid_attention=c["mid_block_add_attention"],
        **{
            key: c[key]
            for key in VAEConfig.__dataclass_fields__
            if key not in ("shift_factor", "mid_attention")
        },
    )
