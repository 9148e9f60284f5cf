"""The parts of a small text-to-music pipeline, with random parameters, ready to be trained.

Of the two published kinds: Stable Diffusion's, whose UNet attends to the states of a caption
(CLIP's text encoder), and AudioLDM's, whose UNet takes one vector of it (CLAP's).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tda_jax.errors import InputError
from tda_jax.models import captions
from tda_jax.models.families import FAMILIES, initialise
from tda_jax.models.pretrained import Component, Record

Kind = Literal["text", "class"]
PIPELINES = {"text": "StableDiffusionPipeline", "class": "AudioLDMPipeline"}
_TEXT_ENCODERS = {"text": "CLIPTextModel", "class": "ClapTextModelWithProjection"}
_TOKENIZERS = {"text": "clip", "class": "roberta"}
_HEADS = 4
_FEWEST_TOKENS = 3
_UNET = "UNet2DConditionModel"
_UNET_GROUPS, _VAE_GROUPS = 8, 4


class Sizes(NamedTuple):
    """How large the parts are.

    Attributes:
        vae: channels of the VAE by level; each level after the first halves both axes.
        latent: channels of a latent.
        unet: channels of the UNet by level; all but the first attend.
        text: width of the text encoder, and of what it gives.
        layers: of the text encoder.
        tokens: of a caption at most.
    """

    vae: tuple[int, ...]
    latent: int
    unet: tuple[int, ...]
    text: int
    layers: int
    tokens: int


def refuse(kind: str, sizes: Sizes) -> None:
    """Refuses sizes of which no part can be made.

    Raises:
        InputError: names the size and the remedy.
    """
    if kind not in PIPELINES:
        raise InputError(f"kind = {kind!r}; choose one of {sorted(PIPELINES)}")
    if len(sizes.unet) < 2 or any(n % _UNET_GROUPS for n in sizes.unet):
        raise InputError(f"unet = {sizes.unet}; give two multiples of {_UNET_GROUPS} or more")
    if not sizes.vae or any(n % _VAE_GROUPS for n in sizes.vae):
        raise InputError(f"vae = {sizes.vae}; give multiples of {_VAE_GROUPS}, one for each level")
    if sizes.text < 1 or sizes.text % _HEADS:
        raise InputError(f"text = {sizes.text}; give a multiple of {_HEADS}, the heads")
    if sizes.tokens < _FEWEST_TOKENS:
        raise InputError(
            f"tokens = {sizes.tokens}; give {_FEWEST_TOKENS} at least, for two ends and a word"
        )
    for name in ("latent", "layers"):
        if getattr(sizes, name) < 1:
            raise InputError(f"{name} = {getattr(sizes, name)}; give 1 at least")


def vae(sizes: Sizes, seed: int) -> Component:
    """A VAE of spectrograms."""
    levels = len(sizes.vae)
    config = {
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": list(sizes.vae),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "latent_channels": sizes.latent,
        "layers_per_block": 1,
        "norm_num_groups": _VAE_GROUPS,
        "mid_block_add_attention": False,  # so that what was learnt from crops holds for windows
        "scaling_factor": 1.0,
    }
    return component("AutoencoderKL", config, seed)


def text_encoder(
    kind: Kind, sizes: Sizes, texts: Sequence[str], seed: int
) -> tuple[Component, captions.CaptionTokenizer]:
    """A text encoder, and a tokenizer trained on captions."""
    tokenizer = captions.make_tokenizer(texts, sizes.tokens, _TOKENIZERS[kind])
    backend = tokenizer.backend
    config: dict[str, Any] = {
        "vocab_size": backend.get_vocab_size(),
        "hidden_size": sizes.text,
        "intermediate_size": 2 * sizes.text,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": _HEADS,
    }
    if kind == "text":
        ends = {"eos_token_id": backend.token_to_id("<|endoftext|>")}
        config |= {"max_position_embeddings": sizes.tokens, "hidden_act": "gelu", **ends}
    else:
        pad = backend.token_to_id(tokenizer.pad_token)
        config |= {"max_position_embeddings": sizes.tokens + pad + 1, "pad_token_id": pad}
        config |= {"projection_dim": sizes.text, "type_vocab_size": 1}
    return component(_TEXT_ENCODERS[kind], config, seed), tokenizer


def unet(kind: Kind, sizes: Sizes, seed: int) -> Component:
    """A denoiser of the VAE's latents."""
    return component(_UNET, _unet_config(kind, sizes), seed)


def unet_groups(kind: Kind, sizes: Sizes) -> Mapping[str, str]:
    """The parameter groups that such a denoiser will have."""
    family = FAMILIES[_UNET]
    named = {"_class_name": _UNET, **_unet_config(kind, sizes)}
    return family.groups(family.read_config(named, f"the new {_UNET}"))


def _unet_config(kind: Kind, sizes: Sizes) -> dict[str, Any]:
    levels = len(sizes.unet)
    config = {
        "in_channels": sizes.latent,
        "out_channels": sizes.latent,
        "block_out_channels": list(sizes.unet),
        "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * (levels - 1),
        "up_block_types": ["CrossAttnUpBlock2D"] * (levels - 1) + ["UpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": _HEADS,
        "norm_num_groups": _UNET_GROUPS,
    }
    if kind == "text":
        config |= {"mid_block_type": None, "cross_attention_dim": sizes.text}
    else:
        config |= {
            "cross_attention_dim": list(sizes.unet),
            "class_embed_type": "simple_projection",
            "projection_class_embeddings_input_dim": sizes.text,
            "class_embeddings_concat": True,
        }
    return config


def component(class_name: str, config: Mapping[str, Any], seed: int) -> Component:
    """A part with random parameters, from the config of its class."""
    family = FAMILIES[class_name]
    key = "architectures" if family.library == "transformers" else "_class_name"
    named = {key: [class_name] if key == "architectures" else class_name, **config}
    read = family.read_config(named, f"the new {class_name}")
    record = Record(class_name, "new", "raw", 0, "", ())
    return Component(
        family.build(read), initialise(family, read, seed), family.groups(read), named, record
    )
