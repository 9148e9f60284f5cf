"""Flax port of transformers' `CLIPTextModel`, the text encoder of Stable Diffusion 1 and 2."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from tda_jax.models.clip_text_config import ClipTextConfig
from tda_jax.models.layers import LayerNorm, Numbered
from tda_jax.precision import working_dtype


class TextStates(NamedTuple):
    """What CLIP makes of captions."""

    last_hidden_state: Float[Array, "batch tokens hidden"]  # after the final norm
    pooled: Float[Array, "batch hidden"]  # the state at the end-of-text token


def causal_attend(
    query: Float[Array, "b n h d"], key: Float[Array, "b n h d"], value: Float[Array, "b n h d"]
) -> Float[Array, "b n h d"]:
    """Scaled dot-product attention of each token to itself and those before it.

    Later tokens have a weight of exactly zero. Weights are normalised in float32 at least.
    """
    accumulate = working_dtype(query.dtype)
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=accumulate)
    seen = np.tri(query.shape[1], dtype=bool)[None, None]
    weights = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)


def quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """X · sigmoid(1.702 x), the approximation that OpenAI's CLIP was trained with."""
    return x * jax.nn.sigmoid(1.702 * x)


class _Attention(nn.Module):
    """CLIPAttention, causal."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        batch, length, features = x.shape

        def project(name: str) -> Array:
            y = nn.Dense(features, name=name)(x)
            return y.reshape(batch, length, self.heads, features // self.heads)

        y = causal_attend(project("q_proj"), project("k_proj"), project("v_proj"))
        return nn.Dense(features, name="out_proj")(y.reshape(x.shape))


class _MLP(nn.Module):
    """CLIPMLP: widens, activates, narrows."""

    features: int
    activation: str

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        y = nn.Dense(self.features, name="fc1")(x)
        y = quick_gelu(y) if self.activation == "quick_gelu" else nn.gelu(y, approximate=False)
        return nn.Dense(x.shape[-1], name="fc2")(y)


class _Layer(nn.Module):
    """CLIPEncoderLayer: norms come before the two residual layers."""

    config: ClipTextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        c = self.config
        y = LayerNorm(c.layer_norm_eps, name="layer_norm1")(x)
        x = x + _Attention(c.num_attention_heads, name="self_attn")(y)
        y = LayerNorm(c.layer_norm_eps, name="layer_norm2")(x)
        return x + _MLP(c.intermediate_size, c.hidden_act, name="mlp")(y)


class _Embeddings(nn.Module):
    """CLIPTextEmbeddings: tokens and their places."""

    config: ClipTextConfig

    @nn.compact
    def __call__(self, ids: Int32[Array, "b n"]) -> Float[Array, "b n c"]:
        c = self.config
        tokens = nn.Embed(c.vocab_size, c.hidden_size, name="token_embedding")(ids)
        places = nn.Embed(c.max_position_embeddings, c.hidden_size, name="position_embedding")
        return tokens + places(np.arange(ids.shape[1], dtype=np.int32))[None]


class _Encoder(nn.Module):
    """CLIPEncoder."""

    config: ClipTextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        layers = Numbered(lambda _, name: _Layer(self.config, name=name), name="layers")
        for index in range(self.config.num_hidden_layers):
            x = layers(index, x)
        return x


class CLIPTextModel(nn.Module):
    """Token ids to hidden states (Radford et al. 2021, arXiv 2103.00020)."""

    config: ClipTextConfig

    @nn.compact
    def __call__(self, ids: Int32[Array, "batch tokens"]) -> TextStates:
        """Encodes captions; padding is read like any other token, as Stable Diffusion does it.

        The pooled state is the one at the first end-of-text token. Configs from before
        transformers 4.31 hold a wrong `eos_token_id` of 2; the highest id is meant there, which
        is that of end-of-text in CLIP's vocabulary.

        Args:
          ids: tokens, each below `config.vocab_size`; at most `config.longest` in a caption.

        Raises:
          ValueError: captions longer than the table of positions.
        """
        c = self.config
        if ids.shape[1] > c.longest:
            raise ValueError(
                f"captions of {ids.shape[1]} tokens; the model has positions for {c.longest}, so "
                f"cut them to that"
            )
        x = _Encoder(c, name="encoder")(_Embeddings(c, name="embeddings")(ids))
        states = LayerNorm(c.layer_norm_eps, name="final_layer_norm")(x)
        marks = ids if c.eos_token_id == 2 else (ids == c.eos_token_id).astype(jnp.int32)
        end = jnp.argmax(marks, axis=1)[:, None, None]
        return TextStates(states, jnp.take_along_axis(states, end, axis=1)[:, 0])
