"""Attention and the transformer blocks of the UNet and the VAE, named as diffusers names them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tda_jax.models.layers import Conv1x1, GroupNorm, LayerNorm, Numbered
from tda_jax.precision import working_dtype

# Elements of one head's matrix of weights, beyond which a CPU does one head after the other: the
# matrices of all heads at once leave its cache.
_LARGE = 2**18


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
    batch, queries, heads, width = query.shape
    accumulate = working_dtype(query.dtype)
    query = query * jnp.asarray(width**-0.5, query.dtype)

    def some_heads(q: Array, k: Array, v: Array, bias: Array | None) -> Array:
        """Attends with batch and heads on one axis."""
        logits = jnp.matmul(q, k.swapaxes(1, 2), preferred_element_type=accumulate)
        if bias is not None:
            logits = logits + bias.astype(accumulate)[:, None, :]
        return jnp.matmul(jax.nn.softmax(logits, axis=-1).astype(v.dtype), v)

    if jax.default_backend() == "cpu" and queries * key.shape[1] > _LARGE:
        by_head = [jnp.moveaxis(x, 2, 0) for x in (query, key, value)]
        return jnp.moveaxis(jax.lax.map(lambda x: some_heads(*x, bias), by_head), 0, 2)

    # One axis, not two: mapped over examples, XLA's CPU backend then keeps attention in one fusion,
    # and otherwise copies each matrix of weights, at 3 to 4 times the time.
    flat = [
        jnp.swapaxes(x, 1, 2).reshape(batch * heads, x.shape[1], width) for x in (query, key, value)
    ]
    repeated = None if bias is None else jnp.repeat(bias, heads, axis=0)
    out = some_heads(*flat, repeated).reshape(batch, heads, queries, width)
    return jnp.swapaxes(out, 1, 2)


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
        attn1 = Attention(self.heads, self.features, name="attn1")
        attn2 = Attention(self.heads, self.features, name="attn2")
        feed_forward = FeedForward(self.features, name="ff")
        x = x + attn1(LayerNorm(name="norm1")(x))
        x = x + attn2(LayerNorm(name="norm2")(x), context, bias)
        return x + feed_forward(LayerNorm(name="norm3")(x))


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
            layer = nn.Dense if self.linear_projection else Conv1x1
            return layer(features, name=name)(y)

        # 1e-6 here and 1e-5 in the resnets is what the weights were trained with.
        y = project("proj_in", GroupNorm(self.groups, 1e-6, name="norm")(x))
        batch, height, width, _ = x.shape
        y = y.reshape(batch, height * width, features)
        blocks = Numbered(
            lambda _, name: TransformerBlock(self.heads, features, name=name),
            name="transformer_blocks",
        )
        for index in range(self.depth):
            y = blocks(index, y, context, bias)
        return x + project("proj_out", y.reshape(x.shape))
