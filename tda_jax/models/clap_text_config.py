"""Settings of transformers' `ClapTextModelWithProjection`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tda_jax.kinds import COUNT, POSITIVE, Kind, is_whole
from tda_jax.models.config_keys import read_keys, require


@dataclass(frozen=True)
class ClapTextConfig:
    """Settings of transformers' `ClapTextModelWithProjection`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int  # rows of the table; tokens begin at row `pad_token_id` + 1
    type_vocab_size: int
    layer_norm_eps: float
    projection_dim: int
    pad_token_id: int

    @property
    def longest(self) -> int:
        """The most tokens that a caption can have."""
        return self.max_position_embeddings - self.pad_token_id - 1


_KINDS: dict[str, Kind] = {
    "vocab_size": COUNT,
    "hidden_size": COUNT,
    "intermediate_size": COUNT,
    "num_hidden_layers": COUNT,
    "num_attention_heads": COUNT,
    "max_position_embeddings": COUNT,
    "type_vocab_size": COUNT,
    "layer_norm_eps": POSITIVE,
    "projection_dim": COUNT,
    "pad_token_id": Kind("a token's id", lambda v: is_whole(v) and v >= 0),
}
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50265,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-12,
    "projection_dim": 512,
    "pad_token_id": 1,
}
_FIXED = {
    "hidden_act": ("gelu",),
    "projection_hidden_act": ("relu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}


def clap_text_config(
    config: Mapping[str, Any], source: str = "the text encoder's config"
) -> ClapTextConfig:
    """Reads the config of transformers' `ClapTextModelWithProjection`.

    transformers writes many keys of its base class into the file, so unknown keys are passed over.

    Raises:
      InputError: a key of the wrong kind, a value that is not ported, heads that do not divide the
        width, or a padding token that is no token.
    """
    c = _DEFAULTS | read_keys(config, source, _KINDS, _FIXED, refuse_unknown=False)
    require(
        c["hidden_size"] % c["num_attention_heads"] == 0,
        source,
        "num_attention_heads",
        c["num_attention_heads"],
        f"it must divide hidden_size {c['hidden_size']}",
    )
    room = min(c["vocab_size"], c["max_position_embeddings"] - 1)
    require(
        c["pad_token_id"] < room,
        source,
        "pad_token_id",
        c["pad_token_id"],
        f"it must be below {room}, for a row of both vocabulary and positions",
    )
    return ClapTextConfig(**c)
