"""Flax port of transformers' `ClapTextModelWithProjection`, the text encoder of AudioLDM."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from tda_jax.models.clap_text_config import ClapTextConfig
from tda_jax.models.layers import LayerNorm, Numbered
from tda_jax.models.transformer import attend

# So far below any logit that softmax gives exactly zero, and finite: a row of a batch without a
# single token then gives no nan.
_HIDDEN = -1e9


class _SelfAttention(nn.Module):
    """ClapTextSelfAttention: the heads' outputs, side by side."""

    heads: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], bias: Float[Array, "b n"]) -> Array:
        batch, length, features = x.shape

        def project(name: str) -> Array:
            y = nn.Dense(features, name=name)(x)
            return y.reshape(batch, length, self.heads, features // self.heads)

        return attend(project("query"), project("key"), project("value"), bias).reshape(x.shape)


class _Output(nn.Module):
    """ClapTextOutput and ClapTextSelfOutput: projects, adds the residual, normalises."""

    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "b n f"], residual: Float[Array, "b n c"]) -> Array:
        y = nn.Dense(residual.shape[-1], name="dense")(x)
        return LayerNorm(self.epsilon, name="LayerNorm")(y + residual)


class _Attention(nn.Module):
    """ClapTextAttention."""

    config: ClapTextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], bias: Float[Array, "b n"]) -> Array:
        y = _SelfAttention(self.config.num_attention_heads, name="self")(x, bias)
        return _Output(self.config.layer_norm_eps, name="output")(y, x)


class _Linear(nn.Module):
    """A linear layer that torch keeps a level deeper, as `dense`."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b f"]:
        return nn.Dense(self.features, name="dense")(x)


class _Layer(nn.Module):
    """ClapTextLayer: norms come after the two residual layers."""

    config: ClapTextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], bias: Float[Array, "b n"]) -> Array:
        x = _Attention(self.config, name="attention")(x, bias)
        y = _Linear(self.config.intermediate_size, name="intermediate")(x)
        y = nn.gelu(y, approximate=False)
        return _Output(self.config.layer_norm_eps, name="output")(y, x)


class _Encoder(nn.Module):
    """ClapTextEncoder."""

    config: ClapTextConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"], bias: Float[Array, "b n"]) -> Array:
        layers = Numbered(lambda _, name: _Layer(self.config, name=name), name="layer")
        for index in range(self.config.num_hidden_layers):
            x = layers(index, x, bias)
        return x


class _Embeddings(nn.Module):
    """ClapTextEmbeddings: tokens, their places and the one type of text, normalised."""

    config: ClapTextConfig

    @nn.compact
    def __call__(self, ids: Int32[Array, "b n"]) -> Float[Array, "b n c"]:
        c = self.config

        def table(rows: int, name: str) -> nn.Embed:
            return nn.Embed(rows, c.hidden_size, name=name)

        # Tokens are counted from pad_token_id + 1; padding stands at pad_token_id, wherever it is.
        real = (ids != c.pad_token_id).astype(jnp.int32)
        places = jnp.cumsum(real, axis=1) * real + c.pad_token_id
        x = table(c.vocab_size, "word_embeddings")(ids)
        x = x + table(c.type_vocab_size, "token_type_embeddings")(jnp.zeros_like(ids))
        x = x + table(c.max_position_embeddings, "position_embeddings")(places)
        return LayerNorm(c.layer_norm_eps, name="LayerNorm")(x)


class _TextModel(nn.Module):
    """ClapTextModel: the pooled state, of the first token."""

    config: ClapTextConfig

    @nn.compact
    def __call__(self, ids: Int32[Array, "b n"], bias: Float[Array, "b n"]) -> Array:
        c = self.config
        x = _Encoder(c, name="encoder")(_Embeddings(c, name="embeddings")(ids), bias)
        return jnp.tanh(_Linear(c.hidden_size, name="pooler")(x[:, 0]))


class _Projection(nn.Module):
    """ClapProjectionLayer: linear, ReLU, linear."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b f"]:
        x = nn.relu(nn.Dense(self.features, name="linear1")(x))
        return nn.Dense(self.features, name="linear2")(x)


class ClapTextModelWithProjection(nn.Module):
    """Token ids to the text embedding of CLAP (Wu et al. 2023, arXiv 2211.06687).

    The encoder is RoBERTa's (Liu et al. 2019, arXiv 1907.11692).
    """

    config: ClapTextConfig

    @nn.compact
    def __call__(
        self, ids: Int32[Array, "batch tokens"], mask: Bool[Array, "batch tokens"]
    ) -> Float[Array, "batch projection"]:
        """Encodes captions as vectors of unit norm.

        transformers returns `text_embeds` before normalisation; AudioLDM's pipeline normalises it
        before it becomes the UNet's class labels, which is done here.

        Args:
          ids: tokens, each below `config.vocab_size`; padding is `config.pad_token_id`. At most
            `config.longest` in a caption.
          mask: True where there is a token; the others are hidden from attention.

        Raises:
          ValueError: captions longer than the table of positions.
        """
        c = self.config
        if ids.shape[1] > c.longest:
            raise ValueError(
                f"captions of {ids.shape[1]} tokens; the model has positions for {c.longest}, so "
                f"cut them to that"
            )
        bias = jnp.where(mask, 0.0, _HIDDEN)
        pooled = _TextModel(c, name="text_model")(ids, bias)
        x = _Projection(c.projection_dim, name="text_projection")(pooled)
        norm = jnp.sqrt(jnp.square(x).sum(-1, keepdims=True))
        return x / jnp.maximum(norm, 1e-12)  # as torch's `normalize`
