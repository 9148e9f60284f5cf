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


def conv(features: int, kernel: int, name: str, stride: int = 1) -> nn.Conv:
    """A square convolution padded by (kernel - 1) / 2 on each side, as torch pads."""
    pad = kernel // 2
    return nn.Conv(features, (kernel,) * 2, (stride,) * 2, ((pad, pad),) * 2, name=name)


def group_norm(groups: int, epsilon: float, name: str) -> nn.GroupNorm:
    """Group normalisation; the two-pass variance keeps float32 parity with torch."""
    return nn.GroupNorm(groups, epsilon=epsilon, use_fast_variance=False, name=name)


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
        have = x.shape[axis]
        if size % have == 0:
            x = jnp.repeat(x, size // have, axis=axis)
        else:
            x = jnp.take(x, np.arange(size) * have // size, axis=axis)
    return x


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
        y = nn.silu(group_norm(self.groups, self.epsilon, "norm1")(x))
        y = conv(self.features, 3, "conv1")(y)
        if temb is not None:
            y = y + nn.Dense(self.features, name="time_emb_proj")(nn.silu(temb))[:, None, None, :]
        y = nn.silu(group_norm(self.groups, self.epsilon, "norm2")(y))
        y = conv(self.features, 3, "conv2")(y)
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, "conv_shortcut")(x)
        return x + y


def attend(
    query: Float[Array, "b q h d"],
    key: Float[Array, "b k h d"],
    value: Float[Array, "b k h d"],
    bias: Float[Array, "b k"] | None,
) -> Float[Array, "b q h d"]:
    """Scaled dot-product attention; weights are normalised in float32 at least.

    Plain products rather than a fused kernel: fused kernels have no forward-mode derivative,
    which linearised attribution needs.
    """
    accumulate = working_dtype(query.dtype)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=accumulate)
    logits = logits * jnp.asarray(query.shape[-1] ** -0.5, accumulate)
    if bias is not None:
        logits = logits + bias.astype(accumulate)[:, None, None, :]
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


class Attention(nn.Module):
    """Multi-head attention of a sequence to another, or to itself where that is None."""

    heads: int
    features: int
    use_bias: bool = False  # of the query, key and value projections

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        context: Float[Array, "b k e"] | None = None,
        bias: Float[Array, "b k"] | None = None,
    ) -> Float[Array, "b n f"]:
        """Attends; `bias` is added to the logits of each key."""
        source = x if context is None else context

        def project(name: str, sequence: Array) -> Array:
            y = nn.Dense(self.features, use_bias=self.use_bias, name=name)(sequence)
            return y.reshape(*y.shape[:2], self.heads, self.features // self.heads)

        query, key, value = project("to_q", x), project("to_k", source), project("to_v", source)
        y = attend(query, key, value, bias)
        out = Numbered(lambda _, name: nn.Dense(self.features, name=name), name="to_out")
        return out(0, y.reshape(*y.shape[:2], self.features))


class GEGLU(nn.Module):
    """x · GELU(gate), with the exact GELU (Shazeer 2020)."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n f"]:
        """Projects to twice the features and gates one half by the other."""
        value, gate = jnp.split(nn.Dense(2 * self.features, name="proj")(x), 2, axis=-1)
        return value * nn.gelu(gate, approximate=False)


class FeedForward(nn.Module):
    """The transformer's feed-forward layer; number 1 of torch's list is dropout."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        """Widens by 4, gates, narrows."""
        make = {0: lambda name: GEGLU(4 * self.features, name=name)}
        make[2] = lambda name: nn.Dense(self.features, name=name)
        net = Numbered(lambda index, name: make[index](name), name="net")
        return net(2, net(0, x))


class TransformerBlock(nn.Module):
    """BasicTransformerBlock: self-attention, attention to text or self-attention again, GEGLU."""

    heads: int
    features: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        context: Float[Array, "b k e"] | None,
        bias: Float[Array, "b k"] | None,
    ) -> Float[Array, "b n c"]:
        """Runs the three residual layers."""

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)

        x = x + Attention(self.heads, self.features, name="attn1")(norm("norm1")(x))
        attn2 = Attention(self.heads, self.features, name="attn2")
        x = x + attn2(norm("norm2")(x), context, bias)
        return x + FeedForward(self.features, name="ff")(norm("norm3")(x))


class Transformer2D(nn.Module):
    """Transformer2DModel over the positions of a feature map."""

    heads: int
    depth: int
    groups: int
    linear_projection: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        context: Float[Array, "b k e"] | None,
        bias: Float[Array, "b k"] | None,
    ) -> Float[Array, "b h w c"]:
        """Normalises, projects, runs `depth` blocks over h·w positions, projects back, adds x."""
        features = x.shape[-1]

        def project(name: str, y: Array) -> Array:
            layer = nn.Dense if self.linear_projection else lambda f, name: conv(f, 1, name)
            return layer(features, name=name)(y)

        # 1e-6 here and 1e-5 in the resnets is what the weights were trained with.
        y = project("proj_in", group_norm(self.groups, 1e-6, "norm")(x))
        y = y.reshape(x.shape[0], -1, features)
        blocks = Numbered(
            lambda _, name: TransformerBlock(self.heads, features, name=name),
            name="transformer_blocks",
        )
        for index in range(self.depth):
            y = blocks(index, y, context, bias)
        return x + project("proj_out", y.reshape(x.shape))


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


class Upsample(nn.Module):
    """Nearest-neighbour upsampling to a skip connection's size, or twofold; a convolution."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: tuple[int, int] | None = None
    ) -> Float[Array, "b h2 w2 c"]:
        """Upsamples to `size` (height, width)."""
        height, width = size or (2 * x.shape[1], 2 * x.shape[2])
        return conv(x.shape[-1], 3, "conv")(upsample_nearest(x, height, width))


class MLPEmbedding(nn.Module):
    """TimestepEmbedding: linear, SiLU, linear."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b f"]:
        """Embeds sinusoidal features."""
        x = nn.silu(nn.Dense(self.features, name="linear_1")(x))
        return nn.Dense(self.features, name="linear_2")(x)
