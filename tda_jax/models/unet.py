"""Flax port of diffusers' `UNet2DConditionModel` (AudioLDM, MusicLDM, Stable Diffusion 1.x).

NHWC: for audio models H is time and W is mel, as in diffusers' (B, C, time, mel).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from tda_jax.models import layers
from tda_jax.models.transformer import Transformer2D
from tda_jax.models.unet_config import UNetConfig, has_attention


def _resnets(c: UNetConfig, features: int) -> layers.Numbered:
    return layers.Numbered(
        lambda _, name: layers.Resnet(features, c.norm_num_groups, c.norm_eps, name=name),
        name="resnets",
    )


def _attentions(c: UNetConfig, level: int) -> layers.Numbered:
    heads, depth = c.heads[level], c.transformer_layers[level]
    return layers.Numbered(
        lambda _, name: Transformer2D(
            heads, depth, c.norm_num_groups, c.use_linear_projection, name=name
        ),
        name="attentions",
    )


class DownBlock(nn.Module):
    """DownBlock2D and CrossAttnDownBlock2D."""

    config: UNetConfig
    level: int

    @nn.compact
    def __call__(self, x: Array, temb: Array, context: Array | None, bias: Array | None) -> Any:
        """Returns the block's skip connections; the last one is its output."""
        c, level = self.config, self.level
        resnets = _resnets(c, c.block_out_channels[level])
        attentions = _attentions(c, level) if has_attention(c.down_block_types[level]) else None
        skips = []
        for i in range(c.layers_per_block[level]):
            x = resnets(i, x, temb)
            if attentions is not None:
                x = attentions(i, x, context, bias)
            skips.append(x)
        if level < len(c.block_out_channels) - 1:
            down = layers.Numbered(
                lambda _, name: layers.Downsample(name=name), name="downsamplers"
            )
            skips.append(down(0, x))
        return skips


class MidBlock(nn.Module):
    """UNetMidBlock2DCrossAttn: resnet, transformer, resnet."""

    config: UNetConfig

    @nn.compact
    def __call__(self, x: Array, temb: Array, context: Array | None, bias: Array | None) -> Array:
        """Runs the block at the lowest resolution."""
        resnets = _resnets(self.config, self.config.block_out_channels[-1])
        x = _attentions(self.config, -1)(0, resnets(0, x, temb), context, bias)
        return resnets(1, x, temb)


class UpBlock(nn.Module):
    """UpBlock2D and CrossAttnUpBlock2D. `index` counts from the lowest resolution."""

    config: UNetConfig
    index: int

    @nn.compact
    def __call__(
        self,
        x: Array,
        skips: list[Array],
        size: tuple[int, int] | None,
        temb: Array,
        context: Array | None,
        bias: Array | None,
    ) -> Array:
        """Consumes `skips`, the last one first; then upsamples to `size` unless that is None."""
        c, level = self.config, -1 - self.index
        resnets = _resnets(c, c.block_out_channels[level])
        attentions = _attentions(c, level) if has_attention(c.up_block_types[self.index]) else None
        for i, skip in enumerate(reversed(skips)):
            x = resnets(i, jnp.concatenate([x, skip], axis=-1), temb)
            if attentions is not None:
                x = attentions(i, x, context, bias)
        if size is not None:
            up = layers.Numbered(lambda _, name: layers.Upsample(name=name), name="upsamplers")
            x = up(0, x, size)
        return x


class UNet2DConditionModel(nn.Module):
    """The denoiser: predicts noise or v of a noisy latent.

    Source: Rombach et al. 2022 (arXiv 2112.10752); AudioLDM's conditions: Liu et al. 2023
    (arXiv 2301.12503). Parameter names and order of operations follow diffusers 0.42.
    """

    config: UNetConfig

    @nn.compact
    def __call__(
        self,
        sample: Float[Array, "batch height width channels"],
        t: Integer[Array, " batch"],
        class_labels: Float[Array, "batch classdim"] | None = None,
        encoder_hidden_states: Float[Array, "batch tokens textdim"] | None = None,
        encoder_attention_mask: Bool[Array, "batch tokens"] | None = None,
    ) -> Float[Array, "batch height width out"]:
        """Predicts.

        Args:
          sample: noisy latents of any height and width of at least 1.
          t: timesteps, 0 to 999 as a rule.
          class_labels: the embedding that conditions AudioLDM and MusicLDM (CLAP, unit norm).
          encoder_hidden_states: text features, where the model has text cross-attention.
          encoder_attention_mask: True where a text token is to be attended to.

        Raises:
          ValueError: a condition that the model needs is absent, one that it cannot take is given,
            or the mask is not boolean.
        """
        c = self.config
        self._check_conditions(class_labels, encoder_hidden_states, encoder_attention_mask)
        temb = self._embed(t, class_labels, sample.dtype)
        context, bias = encoder_hidden_states, None
        if encoder_attention_mask is not None:
            bias = jnp.where(encoder_attention_mask, 0.0, -1e4)

        x = layers.conv3x3(c.block_out_channels[0], "conv_in")(sample)
        down = layers.Numbered(lambda i, name: DownBlock(c, i, name=name), name="down_blocks")
        skips = [x]
        for level in range(len(c.block_out_channels)):
            skips += down(level, skips[-1], temb, context, bias)
        x = skips[-1]
        if c.mid_attention:
            x = MidBlock(c, name="mid_block")(x, temb, context, bias)

        up = layers.Numbered(lambda i, name: UpBlock(c, i, name=name), name="up_blocks")
        for index, count in enumerate(reversed(c.layers_per_block)):
            taken, skips = skips[-count - 1 :], skips[: -count - 1]
            size = skips[-1].shape[1:3] if skips else None
            x = up(index, x, taken, size, temb, context, bias)
        x = nn.silu(layers.GroupNorm(c.norm_num_groups, c.norm_eps, name="conv_norm_out")(x))
        return layers.conv3x3(c.out_channels, "conv_out")(x)

    def _embed(self, t: Array, class_labels: Array | None, dtype: Any) -> Array:
        """The time embedding, with the class embedding added or concatenated to it."""
        c, features = self.config, 4 * self.config.block_out_channels[0]
        sinusoids = layers.timestep_embedding(
            t,
            c.block_out_channels[0],
            flip_sin_to_cos=c.flip_sin_to_cos,
            freq_shift=c.freq_shift,
        )
        temb = layers.MLPEmbedding(features, name="time_embedding")(sinusoids.astype(dtype))
        if class_labels is None:
            return temb
        embedding = nn.Dense(features, name="class_embedding")(class_labels)
        return jnp.concatenate([temb, embedding], -1) if c.class_concat else temb + embedding

    def _check_conditions(
        self, class_labels: Array | None, text: Array | None, mask: Array | None
    ) -> None:
        c = self.config
        for name, given, needed in (
            ("class_labels", class_labels is not None, c.class_input_dim is not None),
            ("encoder_hidden_states", text is not None, c.text_dim is not None),
        ):
            if given != needed:
                verb = "needs" if needed else "cannot take"
                raise ValueError(f"this UNet {verb} {name}: see its config")
        if mask is not None and text is None:
            raise ValueError("encoder_attention_mask masks encoder_hidden_states: give both")
        if mask is not None and mask.dtype != jnp.bool_:
            # An additive mask (0 and -1e4) would be read the wrong way round.
            raise ValueError(
                f"encoder_attention_mask is {mask.dtype}; give booleans, True where a token counts"
            )
