"""Which torch classes are ported, and what each needs to be loaded."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from tda_jax import params as tree
from tda_jax.models.clap_text import ClapTextModelWithProjection
from tda_jax.models.clap_text_config import clap_text_config
from tda_jax.models.clip_text import CLIPTextModel
from tda_jax.models.clip_text_config import clip_text_config
from tda_jax.models.groups import unet_groups
from tda_jax.models.hifigan import SpeechT5HifiGan
from tda_jax.models.hifigan_config import hifigan_config
from tda_jax.models.names import Slot, slot
from tda_jax.models.unet import UNet2DConditionModel
from tda_jax.models.unet_config import UNetConfig, unet_config
from tda_jax.models.vae import AutoencoderKL
from tda_jax.models.vae_config import vae_config
from tda_jax.named_draws import generator


class Family(NamedTuple):
    """How a torch class is read, built and traced."""

    library: str
    weights_name: str  # of the file that `save` writes
    read_config: Callable[[Mapping[str, Any], str], Any]
    build: Callable[[Any], nn.Module]
    inputs: Callable[[Any], tuple[Any, ...]]  # shapes of the smallest call
    groups: Callable[[Any], dict[str, str]]
    lora_prefix: str = ""  # of LoRA keys in diffusers' format; empty where there are none
    transposed: str | None = None  # paths of transposed convolutions
    aliases: Mapping[str, str] = {}
    constants: str | None = None  # names in a file of tables that the code knows: passed over


def _float(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _unet_inputs(c: UNetConfig) -> tuple[Any, ...]:
    size = 2 ** (len(c.block_out_channels) - 1)
    return (
        _float(1, size, size, c.in_channels),
        jax.ShapeDtypeStruct((1,), jnp.int32),
        None if c.class_input_dim is None else _float(1, c.class_input_dim),
        None if c.text_dim is None else _float(1, 1, c.text_dim),
    )


def _tokens(dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, 1), dtype)


def _whole(_: Any) -> dict[str, str]:
    return {"all": r".*"}


def _layers(_: Any) -> dict[str, str]:
    return {"all": r".*/.*"}  # not the vocoder's constants `mean` and `scale`


FAMILIES: Mapping[str, Family] = {
    "UNet2DConditionModel": Family(
        library="diffusers",
        weights_name="diffusion_pytorch_model.safetensors",
        read_config=unet_config,
        build=UNet2DConditionModel,
        inputs=_unet_inputs,
        groups=unet_groups,
        lora_prefix="unet",
    ),
    "AutoencoderKL": Family(
        library="diffusers",
        weights_name="diffusion_pytorch_model.safetensors",
        read_config=vae_config,
        build=AutoencoderKL,
        inputs=lambda c: (_float(1, c.factor, c.factor, c.in_channels),),
        groups=_whole,
        # Checkpoints from before diffusers 0.17 name the attention's projections so.
        aliases={
            r"(\.attentions\.\d+)\.query\.": r"\1.to_q.",
            r"(\.attentions\.\d+)\.key\.": r"\1.to_k.",
            r"(\.attentions\.\d+)\.value\.": r"\1.to_v.",
            r"(\.attentions\.\d+)\.proj_attn\.": r"\1.to_out.0.",
        },
    ),
    "SpeechT5HifiGan": Family(
        library="transformers",
        weights_name="model.safetensors",
        read_config=hifigan_config,
        build=SpeechT5HifiGan,
        inputs=lambda c: (_float(1, 1, c.model_in_dim),),
        groups=_layers,
        transposed=r"upsampler/\d+/kernel",
    ),
    "CLIPTextModel": Family(
        library="transformers",
        weights_name="model.safetensors",
        read_config=clip_text_config,
        build=CLIPTextModel,
        inputs=lambda _: (_tokens(jnp.int32),),
        groups=_whole,
        # The prefix went with transformers 5, the table of positions with 4.31.
        aliases={r"^text_model\.": ""},
        constants=r"(text_model\.)?embeddings\.position_ids",
    ),
    "ClapTextModelWithProjection": Family(
        library="transformers",
        weights_name="model.safetensors",
        read_config=clap_text_config,
        build=ClapTextModelWithProjection,
        inputs=lambda _: (_tokens(jnp.int32), _tokens(jnp.bool_)),
        groups=_whole,
        constants=r"text_model\.embeddings\.(position_ids|token_type_ids)",
    ),
}


def template(family: Family, config: Any) -> dict[str, Any]:
    """The tree of a model's parameters, as shapes: nothing is allocated."""
    module = family.build(config)
    return jax.eval_shape(module.init, jax.random.key(0), *family.inputs(config))["params"]


def slots(family: Family, shapes: Mapping[str, Any]) -> list[Slot]:
    """One slot for each leaf of a tree."""
    return [slot(path, s.shape, family.transposed) for path, s in tree.flatten(shapes).items()]


def initialise(family: Family, config: Any, seed: int) -> dict[str, Any]:
    """Random parameters, float32: each a function of (seed, its path).

    Norms start as the identity, biases at zero and kernels as LeCun et al. 1998 scale them: outputs
    keep the variance of inputs. Embeddings have a standard deviation of 0.02, as CLIP's have.
    Flax's own initialisation is compiled for 10 s and longer.
    """
    shapes = tree.flatten(template(family, config))
    return tree.merge({path: _draw(seed, path, s.shape) for path, s in shapes.items()})


def _draw(seed: int, path: str, shape: tuple[int, ...]) -> jax.Array:
    match path.rpartition("/")[2]:
        case "scale":
            return jnp.ones(shape, jnp.float32)
        case "bias" | "mean":
            return jnp.zeros(shape, jnp.float32)
        case "kernel":
            fan_in = math.prod(shape[:-1])
            drawn = generator(seed, path).standard_normal(shape)
            return jnp.asarray(drawn / fan_in**0.5, jnp.float32)
        case "embedding":
            return jnp.asarray(0.02 * generator(seed, path).standard_normal(shape), jnp.float32)
    raise ValueError(f"no rule to initialise {path}")
