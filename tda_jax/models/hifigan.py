"""Flax port of transformers' `SpeechT5HifiGan`, the vocoder of AudioLDM and MusicLDM."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

from tda_jax.models.hifigan_config import HifiGanConfig
from tda_jax.models.layers import Numbered

_DIMENSIONS = ("NWC", "WIO", "NWC")


def _conv1d(features: int, kernel: int, name: str, dilation: int = 1) -> nn.Conv:
    """A convolution over time that keeps the length."""
    pad = dilation * (kernel - 1) // 2
    return nn.Conv(features, (kernel,), padding=((pad, pad),), kernel_dilation=dilation, name=name)


class ConvTranspose1d(nn.Module):
    """torch's ConvTranspose1d with padding (kernel - stride) // 2.

    The kernel is held flipped in time, so that it is a plain convolution of the input with
    stride - 1 zeros between its frames.
    """

    features: int
    kernel_size: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b m f"]:
        """Upsamples by about `stride`."""
        shape = (self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias)
        pad = self.kernel_size - 1 - (self.kernel_size - self.stride) // 2
        y = jax.lax.conv_general_dilated(
            x, kernel, (1,), ((pad, pad),), (self.stride,), dimension_numbers=_DIMENSIONS
        )
        return y + bias[None, None, :]


class ResidualBlock(nn.Module):
    """Dilated and plain convolutions in pairs, each pair added to its input."""

    features: int
    kernel: int
    dilations: Sequence[int]
    slope: float

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Runs one pair for each dilation."""
        dilated = Numbered(
            lambda i, name: _conv1d(self.features, self.kernel, name, self.dilations[i]),
            name="convs1",
        )
        plain = Numbered(lambda _, name: _conv1d(self.features, self.kernel, name), name="convs2")
        for i in range(len(self.dilations)):
            y = dilated(i, nn.leaky_relu(x, self.slope))
            x = x + plain(i, nn.leaky_relu(y, self.slope))
        return x


class SpeechT5HifiGan(nn.Module):
    """Log-mel spectrogram to waveform (Kong et al. 2020, arXiv 2010.05646)."""

    config: HifiGanConfig

    @nn.compact
    def __call__(self, mel: Float[Array, "batch frames mels"]) -> Float[Array, "batch samples"]:
        """Synthesises a waveform in [-1, 1] at `config.sampling_rate`.

        About `prod(upsample_rates)` samples a frame: 100 frames give 16,032 under AudioLDM's
        settings, of which the first 16,000 are wanted.
        """
        c = self.config
        mean = self.param("mean", nn.initializers.zeros, (c.model_in_dim,))
        scale = self.param("scale", nn.initializers.ones, (c.model_in_dim,))
        x = (mel - mean[None, None, :]) / scale[None, None, :] if c.normalize_before else mel
        x = _conv1d(c.upsample_initial_channel, 7, "conv_pre")(x)

        widths = [c.upsample_initial_channel // 2 ** (i + 1) for i in range(len(c.upsample_rates))]
        per_level = len(c.resblock_kernel_sizes)
        upsampler = Numbered(
            lambda i, name: ConvTranspose1d(
                widths[i], c.upsample_kernel_sizes[i], c.upsample_rates[i], name=name
            ),
            name="upsampler",
        )
        resblocks = Numbered(
            lambda i, name: ResidualBlock(
                widths[i // per_level],
                c.resblock_kernel_sizes[i % per_level],
                c.resblock_dilation_sizes[i % per_level],
                c.leaky_relu_slope,
                name=name,
            ),
            name="resblocks",
        )
        for i in range(len(c.upsample_rates)):
            x = upsampler(i, nn.leaky_relu(x, c.leaky_relu_slope))
            members = [resblocks(i * per_level + j, x) for j in range(per_level)]
            x = sum(members[1:], members[0]) / per_level
        # torch's own default slope of 0.01 stands here, not the config's.
        x = _conv1d(1, 7, "conv_post")(nn.leaky_relu(x, 0.01))
        return jnp.tanh(x)[..., 0]
