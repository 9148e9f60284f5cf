"""Layers that the UNet and the VAE share, NHWC, named as diffusers names them.

Sequences that torch keeps in a ModuleList are scopes here (`resnets/0`, `to_out/0`), so that the
path of a parameter is its torch name with "/" for ".".
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float, Integer

from tda_jax.precision import working_dtype


class Numbered(nn.Module):
    """The scope `name/index` of each member of a torch ModuleList.

    `make(index, name)` returns the member; a call runs it on the remaining arguments.
    """

    make: Callable[[int, str], nn.Module]

    @nn.compact
    def __call__(self, index: int, *args: Any) -> Any:
        """Runs member `index`."""
        return self.make(index, str(index))(*args)


def conv3x3(features: int, name: str) -> nn.Conv:
    """A 3 x 3 convolution that keeps the size of the map."""
    return nn.Conv(features, (3, 3), padding=((1, 1), (1, 1)), name=name)


class Conv1x1(nn.Module):
    """A 1 x 1 convolution, as the matrix product that it is: on a CPU twice as fast."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b f"]:
        """Applies the kernel, of shape (1, 1, c, f) as a convolution's."""
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias)
        return x @ kernel[0, 0] + bias.reshape((1,) * (x.ndim - 1) + (-1,))


def _normalised(x: Array, statistic: Callable[[Array], Array], epsilon: float) -> Array:
    """Subtracts the mean and divides by the standard deviation, in float32 at least.

    The variance is taken of the centred values: mean(x²) - mean(x)² cancels in float32.
    """
    centred = x - statistic(x)
    return centred * jax.lax.rsqrt(statistic(jnp.square(centred)) + epsilon)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018, arXiv 1803.08494) of NHWC maps.

    Sums run over positions first and then within a group of channels: twice as fast on a CPU as
    reducing both at once, which strides through memory.
    """

    groups: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Normalises each group of channels over all positions; scales and shifts each channel."""
        batch, height, width, channels = x.shape
        members = channels // self.groups
        scale, bias = _scale_and_bias(self, channels)

        def group_mean(y: Array) -> Array:
            by_channel = y.sum((1, 2)).reshape(batch, self.groups, members)
            mean = by_channel.sum(-1) / (height * width * members)
            return jnp.repeat(mean, members, axis=-1)[:, None, None, :]

        y = _normalised(x.astype(working_dtype(x.dtype)), group_mean, self.epsilon)
        return (y * scale[None, None, None] + bias[None, None, None]).astype(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016, arXiv 1607.06450), epsilon 1e-5 as torch's default."""

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Normalises each position over its channels; scales and shifts each channel."""
        scale, bias = _scale_and_bias(self, x.shape[-1])
        mean = lambda y: y.mean(-1, keepdims=True)  # noqa: E731
        y = _normalised(x.astype(working_dtype(x.dtype)), mean, self.epsilon)
        return (y * scale[None, None] + bias[None, None]).astype(x.dtype)


def _scale_and_bias(module: nn.Module, channels: int) -> tuple[Array, Array]:
    scale = module.param("scale", nn.initializers.ones, (channels,))
    bias = module.param("bias", nn.initializers.zeros, (channels,))
    return tuple(p.astype(working_dtype(p.dtype)) for p in (scale, bias))


def timestep_embedding(
    t: Integer[Array, " batch"], dim: int, *, flip_sin_to_cos: bool, freq_shift: float
) -> Float[Array, "batch {dim}"]:
    """Sinusoidal features of a timestep (Ho et al. 2020, after Vaswani et al. 2017), float32.

    Args:
      t: timesteps, 0 to 999 as a rule.
      dim: the number of features; an odd one is padded with a zero.
      flip_sin_to_cos: cosines first.
      freq_shift: subtracted from the number of frequencies in the exponent.
    """
    half = dim // 2
    # In float32 step by step: t reaches 999, where one rounding of a frequency is 6e-5 rad.
    exponent = np.float32(-math.log(10000.0)) * np.arange(half, dtype=np.float32)
    frequency = np.exp(exponent / np.float32(half - freq_shift))
    angle = t.astype(jnp.float32)[:, None] * frequency[None, :]
    parts = [jnp.sin(angle), jnp.cos(angle)]
    features = jnp.concatenate(parts[::-1] if flip_sin_to_cos else parts, axis=-1)
    return jnp.pad(features, ((0, 0), (0, dim % 2)))


def upsample_nearest(
    x: Float[Array, "batch h w c"], height: int, width: int
) -> Float[Array, "batch {height} {width} c"]:
    """Nearest-neighbour upsampling to a size; element i is taken from floor(i · in / out)."""
    for axis, size in ((1, height), (2, width)):
        x = jnp.take(x, np.arange(size) * x.shape[axis] // size, axis=axis)
    return x


def conv_of_doubled(
    x: Float[Array, "batch h w c"], kernel: Float[Array, "3 3 c f"]
) -> Float[Array, "batch 2*h 2*w f"]:
    """The 3 x 3 convolution of x upsampled twofold, without upsampling it.

    Each output element sees at most 2 x 2 elements of x, so that each of the four positions within
    a doubled element is a 2 x 2 convolution whose kernel sums those of the 3 x 3 one that fall on
    the same element: 16 products an element of x for 36.
    """
    batch, height, width, _ = x.shape
    features = kernel.shape[-1]

    def halves(k: Array, axis: int) -> list[Array]:
        first, middle, last = jnp.split(k, 3, axis)
        pairs = ((first, middle + last), (first + middle, last))
        return [jnp.concatenate(pair, axis) for pair in pairs]

    def conv(k: Array, pad_h: tuple[int, int], pad_w: tuple[int, int]) -> Array:
        return jax.lax.conv_general_dilated(
            x, k, (1, 1), (pad_h, pad_w), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    pads = ((1, 0), (0, 1))
    rows = [
        jnp.stack([conv(k, pads[i], pads[j]) for j, k in enumerate(halves(row, 1))], axis=3)
        for i, row in enumerate(halves(kernel, 0))
    ]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, features)


class Resnet(nn.Module):
    """ResnetBlock2D: twice norm, SiLU, convolution, the time embedding added between."""

    features: int
    groups: int
    epsilon: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], temb: Float[Array, "b e"] | None = None
    ) -> Float[Array, "b h w f"]:
        """Runs the block; `temb` is the time embedding, absent in a VAE."""
        y = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm1")(x))
        y = conv3x3(self.features, "conv1")(y)
        if temb is not None:
            y = y + nn.Dense(self.features, name="time_emb_proj")(nn.silu(temb))[:, None, None, :]
        y = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm2")(y))
        y = conv3x3(self.features, "conv2")(y)
        if x.shape[-1] != self.features:
            x = Conv1x1(self.features, name="conv_shortcut")(x)
        return x + y


class Downsample(nn.Module):
    """Halves a feature map by a strided convolution.

    The UNet pads one on each side; the VAE pads only at the end (torch's F.pad (0, 1, 0, 1)).
    """

    pad_end_only: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """Convolves with stride 2."""
        pad = (0, 1) if self.pad_end_only else (1, 1)
        return nn.Conv(x.shape[-1], (3, 3), (2, 2), (pad, pad), name="conv")(x)


class _Conv3x3OfUpsampled(nn.Module):
    """The convolution of an upsampled map, by `conv_of_doubled` where that is what it is."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], size: tuple[int, int]) -> Array:
        channels = x.shape[-1]
        shape = (3, 3, channels, channels)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x, kernel, bias = promote_dtype(x, kernel, bias)
        if size == (2 * x.shape[1], 2 * x.shape[2]):
            y = conv_of_doubled(x, kernel)
        else:
            y = jax.lax.conv_general_dilated(
                upsample_nearest(x, *size),
                kernel,
                (1, 1),
                ((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return y + bias[None, None, None]


class Upsample(nn.Module):
    """Nearest-neighbour upsampling to a skip connection's size, or twofold; a convolution."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: tuple[int, int] | None = None
    ) -> Float[Array, "b h2 w2 c"]:
        """Upsamples to `size` (height, width)."""
        size = size or (2 * x.shape[1], 2 * x.shape[2])
        return _Conv3x3OfUpsampled(name="conv")(x, size)


class MLPEmbedding(nn.Module):
    """TimestepEmbedding: linear, SiLU, linear."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b f"]:
        """Embeds sinusoidal features."""
        x = nn.silu(nn.Dense(self.features, name="linear_1")(x))
        return nn.Dense(self.features, name="linear_2")(x)
