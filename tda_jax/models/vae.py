"""Flax port of diffusers' `AutoencoderKL`, NHWC: images, or mel spectrograms (time, mel, 1)."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from tda_jax.errors import InputError
from tda_jax.models import layers
from tda_jax.models.transformer import Attention
from tda_jax.models.vae_config import VAEConfig

_EPSILON = 1e-6


class Posterior(NamedTuple):
    """The diagonal Gaussian q(z | x); a latent is `scaling_factor · (z - shift_factor)`."""

    mean: Float[Array, "batch h w latent"]
    std: Float[Array, "batch h w latent"]


def _resnets(c: VAEConfig, features: int) -> layers.Numbered:
    return layers.Numbered(
        lambda _, name: layers.Resnet(features, c.norm_num_groups, _EPSILON, name=name),
        name="resnets",
    )


class SpatialAttention(nn.Module):
    """Single-head self-attention over the positions of a feature map, with biases."""

    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Normalises, attends, adds x."""
        y = layers.GroupNorm(self.groups, _EPSILON, name="group_norm")(x)
        batch, height, width, channels = x.shape
        y = y.reshape(batch, height * width, channels)
        # The projections of this scope belong to the attention itself: one flat torch module.
        attention = Attention(1, x.shape[-1], use_bias=True, name="attention")
        nn.share_scope(self, attention)
        return x + attention(y).reshape(x.shape)


class MidBlock(nn.Module):
    """UNetMidBlock2D: resnet, attention, resnet."""

    config: VAEConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Runs the block at the latent's resolution."""
        c = self.config
        resnets = _resnets(c, c.block_out_channels[-1])
        x = resnets(0, x)
        if c.mid_attention:
            make = lambda _, name: SpatialAttention(c.norm_num_groups, name=name)  # noqa: E731
            x = layers.Numbered(make, name="attentions")(0, x)
        return resnets(1, x)


class DownBlock(nn.Module):
    """DownEncoderBlock2D."""

    config: VAEConfig
    level: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        """Runs the resnets, and halves the map except at the last level."""
        c = self.config
        resnets = _resnets(c, c.block_out_channels[self.level])
        for i in range(c.layers_per_block):
            x = resnets(i, x)
        if self.level < len(c.block_out_channels) - 1:
            make = lambda _, name: layers.Downsample(pad_end_only=True, name=name)  # noqa: E731
            x = layers.Numbered(make, name="downsamplers")(0, x)
        return x


class UpBlock(nn.Module):
    """UpDecoderBlock2D. `index` counts from the latent's resolution."""

    config: VAEConfig
    index: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        """Runs the resnets, and doubles the map except at the last level."""
        c = self.config
        resnets = _resnets(c, c.block_out_channels[-1 - self.index])
        for i in range(c.layers_per_block + 1):
            x = resnets(i, x)
        if self.index < len(c.block_out_channels) - 1:
            make = lambda _, name: layers.Upsample(name=name)  # noqa: E731
            x = layers.Numbered(make, name="upsamplers")(0, x)
        return x


class Encoder(nn.Module):
    """The VAE's encoder, to twice the latent's channels."""

    config: VAEConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 moments"]:
        """Encodes."""
        c = self.config
        x = layers.conv3x3(c.block_out_channels[0], "conv_in")(x)
        down = layers.Numbered(lambda i, name: DownBlock(c, i, name=name), name="down_blocks")
        for level in range(len(c.block_out_channels)):
            x = down(level, x)
        x = MidBlock(c, name="mid_block")(x)
        x = nn.silu(layers.GroupNorm(c.norm_num_groups, _EPSILON, name="conv_norm_out")(x))
        return layers.conv3x3(2 * c.latent_channels, "conv_out")(x)


class Decoder(nn.Module):
    """The VAE's decoder."""

    config: VAEConfig

    @nn.compact
    def __call__(self, z: Float[Array, "b h w latent"]) -> Float[Array, "b h2 w2 c"]:
        """Decodes."""
        c = self.config
        x = layers.conv3x3(c.block_out_channels[-1], "conv_in")(z)
        x = MidBlock(c, name="mid_block")(x)
        up = layers.Numbered(lambda i, name: UpBlock(c, i, name=name), name="up_blocks")
        for index in range(len(c.block_out_channels)):
            x = up(index, x)
        x = nn.silu(layers.GroupNorm(c.norm_num_groups, _EPSILON, name="conv_norm_out")(x))
        return layers.conv3x3(c.out_channels, "conv_out")(x)


class AutoencoderKL(nn.Module):
    """The variational autoencoder of latent diffusion (Rombach et al. 2022, arXiv 2112.10752).

    Call `encode` and `decode` by `module.apply(variables, x, method="encode")`; calling the module
    itself reconstructs through the posterior's mean.
    """

    config: VAEConfig

    def setup(self) -> None:
        """Names the parts as diffusers does."""
        c = self.config
        self.encoder = Encoder(c)
        self.decoder = Decoder(c)
        if c.use_quant_conv:
            self.quant_conv = layers.Conv1x1(2 * c.latent_channels)
        if c.use_post_quant_conv:
            self.post_quant_conv = layers.Conv1x1(c.latent_channels)

    def encode(self, x: Float[Array, "batch height width channels"]) -> Posterior:
        """The posterior of z given x; sizes that `factor` does not divide are rounded down.

        Raises:
          InputError: x is smaller than one latent element.
        """
        if min(x.shape[1:3]) < self.config.factor:
            raise InputError(
                f"an input of {x.shape[1]} x {x.shape[2]} is smaller than one latent element; "
                f"give at least {self.config.factor} along each axis"
            )
        moments = self.encoder(x)
        if self.config.use_quant_conv:
            moments = self.quant_conv(moments)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return Posterior(mean, jnp.exp(0.5 * jnp.clip(log_variance, -30.0, 20.0)))

    def decode(
        self, z: Float[Array, "batch h w latent"]
    ) -> Float[Array, "batch height width channels"]:
        """Decodes z (unscaled) to an input `factor` times as high and as wide."""
        return self.decoder(self.post_quant_conv(z) if self.config.use_post_quant_conv else z)

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch h w c"]:
        """Decodes the posterior's mean."""
        return self.decode(self.encode(x).mean)
