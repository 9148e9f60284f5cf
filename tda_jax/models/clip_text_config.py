"""Settings of transformers' `CLIPTextModel`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tda_jax.kinds import COUNT, POSITIVE, STR, Kind, is_whole
from tda_jax.models.config_keys import read_keys, require


@dataclass(frozen=True)
class ClipTextConfig:
    """Settings of transformers' `CLIPTextModel`; ids and positions are counted from 0."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    hidden_act: str  # "quick_gelu" or "gelu"
    layer_norm_eps: float
    eos_token_id: int  # 2 stands for the highest id of a caption: see `CLIPTextModel`

    @property
    def longest(self) -> int:
        """The most tokens that a caption can have."""
        return self.max_position_embeddings


_KINDS: dict[str, Kind] = {
    "vocab_size": COUNT,
    "hidden_size": COUNT,
    "intermediate_size": COUNT,
    "num_hidden_layers": COUNT,
    "num_attention_heads": COUNT,
    "max_position_embeddings": COUNT,
    "hidden_act": STR,
    "layer_norm_eps": POSITIVE,
    "eos_token_id": Kind("a token's id", lambda v: is_whole(v) and v >= 0),
}
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
# With `use_attention_mask` diffusers' pipelines hide padding from the encoder.
_FIXED = {"use_attention_mask": (False,), "position_embedding_type": ("absolute",)}


def clip_text_config(
    config: Mapping[str, Any], source: str = "the text encoder's config"
) -> ClipTextConfig:
    """Reads the config of transformers' `CLIPTextModel`.

    transformers writes many keys of its base class into the file, so unknown keys are passed over.

    Raises:
      InputError: a key of the wrong kind, a value that is not ported, or heads that do not divide
        the width.
    """
    c = _DEFAULTS | read_keys(config, source, _KINDS, _FIXED, refuse_unknown=False)
    require(
        c["hidden_act"] in ("quick_gelu", "gelu"),
        source,
        "hidden_act",
        c["hidden_act"],
        "only quick_gelu and gelu are supported, so a model that needs it cannot be loaded",
    )
    require(
        c["hidden_size"] % c["num_attention_heads"] == 0,
        source,
        "num_attention_heads",
        c["num_attention_heads"],
        f"it must divide hidden_size {c['hidden_size']}",
    )
    return ClipTextConfig(**c)
