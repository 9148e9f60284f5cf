"""Captions → tokens → the condition of a denoiser, by a pipeline's own tokenizer and text encoder.

tokenizer = load_tokenizer("/models/riffusion/tokenizer")
pipeline = load_pipeline("/models/riffusion", ("text_encoder",))
condition = conditions(pipeline.components["text_encoder"], tokenizer, ["slow jazz piano"])
"""

import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Int32

from tda_jax.errors import InputError
from tda_jax.kinds import COUNT
from tda_jax.models import tokenizer_backends as backends
from tda_jax.models.clap_text import ClapTextModelWithProjection
from tda_jax.models.clip_text import CLIPTextModel
from tda_jax.models.denoiser import Condition
from tda_jax.models.folders import read_json
from tda_jax.models.pretrained import Component

_CLASSES = {  # transformers' classes that `vocab.json` and `merges.txt` are read for
    "CLIPTokenizer": backends.CLIP_SPECIALS,
    "RobertaTokenizer": backends.ROBERTA_SPECIALS,
}
_KINDS = {  # kind → (class in transformers, its special tokens, training)
    "clip": ("CLIPTokenizer", backends.CLIP_SPECIALS, backends.train_clip),
    "roberta": ("RobertaTokenizer", backends.ROBERTA_SPECIALS, backends.train_roberta),
    "words": ("PreTrainedTokenizerFast", backends.ROBERTA_SPECIALS, backends.train_words),
}
_BATCH = 16  # captions encoded at once


class CaptionTokenizer(NamedTuple):
    """A tokenizer and the length to which it pads and cuts captions."""

    backend: Any  # a `tokenizers.Tokenizer` that neither pads nor cuts
    max_length: int  # tokens, the special ones included
    pad_token: str
    config: dict[str, Any]  # tokenizer_config.json, its special tokens resolved


def load_tokenizer(folder: str | Path, max_length: int | None = None) -> CaptionTokenizer:
    """Reads a tokenizer's folder, as diffusers and transformers write it.

    `tokenizer.json` is taken as it is where the folder has one; else `vocab.json` and `merges.txt`
    are read as CLIP's or RoBERTa's, whichever `tokenizer_config.json` names.

    Args:
      folder: for example `.../tokenizer` of a pipeline.
      max_length: tokens of a caption; None takes `model_max_length` of the config.

    Raises:
      InputError: a file that is missing or cannot be read, a class that is not supported, or no
        length or padding token stated.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: the tokenizer's folder is missing; complete the download")
    source = folder / "tokenizer_config.json"
    config, specials = _read_config(source)
    if (folder / "tokenizer.json").exists():
        backend = backends.from_json(folder / "tokenizer.json")
    else:
        backend = _from_tables(folder, config, specials)
    pad = specials.get("pad_token")
    if pad is None or backend.token_to_id(backends.text_of(pad)) is None:
        raise InputError(f"{source}: pad_token is {pad!r}, no token of the vocabulary; state one")
    length = config.get("model_max_length") if max_length is None else max_length
    # transformers writes 1e30 where no length was given.
    least = backend.num_special_tokens_to_add(False)
    if not COUNT.accepts(length) or not least < length < 1e6:
        raise InputError(
            f"{source}: the length of captions is {length!r} (model_max_length, unless given); "
            f"give max_length, above {least}, the number of special tokens"
        )
    return CaptionTokenizer(backend, length, backends.text_of(pad), config)


def _class(config: dict[str, Any]) -> str:
    return str(config.get("tokenizer_class")).removesuffix("Fast")


def _read_config(source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config with the special tokens that are meant, and these alone."""
    config = read_json(source)
    config = _CLASSES.get(_class(config), {}) | config
    # As transformers: this file counts before the config, unless that lists all added tokens.
    special_map = source.with_name("special_tokens_map.json")
    if "added_tokens_decoder" not in config and special_map.exists():
        config |= read_json(special_map)
    specials = {k: v for k, v in config.items() if k in backends.ROBERTA_SPECIALS and v is not None}
    for key, token in specials.items():
        if not isinstance(token, str) and not (isinstance(token, dict) and "content" in token):
            raise InputError(f"{source}: {key} is {token!r}, no token; restore the tokenizer")
    return config, specials


def _from_tables(folder: Path, config: dict[str, Any], specials: backends.Specials) -> Any:
    """The tokenizer of a folder without `tokenizer.json`."""
    name = _class(config)
    if name not in _CLASSES:
        raise InputError(
            f"{folder}: tokenizer_class is {config.get('tokenizer_class')!r}, and there is no "
            f"tokenizer.json; only {sorted(_CLASSES)} are read from vocab.json and merges.txt, so "
            f"save it with transformers, which writes tokenizer.json"
        )
    missing = [f for f in ("vocab.json", "merges.txt") if not (folder / f).is_file()]
    if missing:
        raise InputError(
            f"{folder}: has no tokenizer.json and lacks {' and '.join(missing)}; "
            f"complete the download"
        )
    if name == "CLIPTokenizer":
        return backends.from_bpe_files(folder, lambda v, m: backends.clip(v, m, specials))
    space = bool(config.get("add_prefix_space", False))
    return backends.from_bpe_files(
        folder, lambda v, m: backends.roberta(v, m, specials, prefix_space=space)
    )


def make_tokenizer(
    captions: Sequence[str], max_length: int, kind: str, *, size: int = 1000
) -> CaptionTokenizer:
    """A small tokenizer trained on captions: a function of their set of words and counts.

    Args:
      captions: what to train on, in any order.
      max_length: tokens of a caption, the two special ones included; at least 3.
      kind: "clip" (byte-level BPE, loaded by transformers' CLIPTokenizer), "roberta" (byte-level
        BPE, loaded by RobertaTokenizer) or "words" (one token a word, by PreTrainedTokenizerFast).
        The last two number their special tokens as RoBERTa: the padding token is 1.
      size: merges of BPE, or words, at most.

    Raises:
      InputError: an unknown kind, no captions, or no room for a word.
    """
    if kind not in _KINDS:
        raise InputError(f"kind of tokenizer is {kind!r}; choose one of {sorted(_KINDS)}")
    if max_length < 3:
        raise InputError(
            f"max_length is {max_length}, of which 2 are special tokens; give 3 or more"
        )
    name, specials, train = _KINDS[kind]
    config = {"tokenizer_class": name, "model_max_length": max_length, **specials}
    backend = train(_checked(captions), size)
    return CaptionTokenizer(backend, max_length, specials["pad_token"], config)


def save_tokenizer(folder: str | Path, tokenizer: CaptionTokenizer) -> None:
    """Writes a tokenizer's folder that `load_tokenizer` and transformers read.

    `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, and the tables of the
    model (`vocab.json`, with BPE `merges.txt`) for readers that know no `tokenizer.json`.

    Raises:
      InputError: the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder}: exists already; give a new folder, nothing is overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = tokenizer.config | {"model_max_length": tokenizer.max_length}
    specials = {key: config[key] for key in backends.ROBERTA_SPECIALS if config.get(key)}
    part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part.", dir=folder.parent))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, part, ignore_errors=True)
        tokenizer.backend.save(str(part / "tokenizer.json"))
        tokenizer.backend.model.save(str(part))
        for name, value in (("tokenizer_config", config), ("special_tokens_map", specials)):
            text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
            (part / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        part.chmod(0o755)  # mkdtemp's is for its owner only
        part.rename(folder)


def _checked(captions: Sequence[str]) -> list[str]:
    if isinstance(captions, str) or len(captions) == 0:
        raise InputError(f"captions are {captions!r}; give a list of at least one caption")
    return list(captions)


def token_ids(
    tokenizer: CaptionTokenizer, captions: Sequence[str]
) -> tuple[Int32[np.ndarray, "n length"], Bool[np.ndarray, "n length"]]:
    """The tokens of captions, and where they are tokens rather than padding.

    Each caption has its start and end tokens; one that is longer than `tokenizer.max_length` is
    cut, its end token kept, and the log says how many were.

    Raises:
      InputError: no captions.
    """
    backend, length = tokenizer.backend, tokenizer.max_length
    room = length - backend.num_special_tokens_to_add(False)
    encodings = backend.encode_batch(_checked(captions), add_special_tokens=False)
    cut = sum(len(encoding) > room for encoding in encodings)
    if cut:
        logging.warning("%d of %d captions were cut to %d tokens", cut, len(encodings), length)
    for encoding in encodings:
        encoding.truncate(room)
    encodings = [backend.post_process(encoding) for encoding in encodings]
    pad = backend.token_to_id(tokenizer.pad_token)
    for encoding in encodings:
        encoding.pad(length, pad_id=pad, pad_token=tokenizer.pad_token)
    ids = np.array([encoding.ids for encoding in encodings], np.int32)
    mask = np.array([encoding.attention_mask for encoding in encodings], bool)
    return ids, mask


@functools.partial(jax.jit, static_argnums=0)
def _encode(
    module: nn.Module, params: Any, ids: Int32[jax.Array, "b n"], mask: Bool[jax.Array, "b n"]
) -> Float[jax.Array, "b ..."]:
    if isinstance(module, CLIPTextModel):
        # Stable Diffusion reads padding like any other token.
        return module.apply({"params": params}, ids).last_hidden_state
    return module.apply({"params": params}, ids, mask)


def _check_fit(text_encoder: Component, tokenizer: CaptionTokenizer) -> None:
    name, module = text_encoder.record.class_name, text_encoder.module
    if not isinstance(module, CLIPTextModel | ClapTextModelWithProjection):
        raise InputError(
            f"captions cannot be encoded by a {name}; give a text encoder, a CLIPTextModel or a "
            f"ClapTextModelWithProjection"
        )
    if tokenizer.max_length > module.config.longest:
        raise InputError(
            f"the tokenizer pads captions to {tokenizer.max_length} tokens, and the {name} has "
            f"positions for {module.config.longest}; load it with that as max_length"
        )
    pad = tokenizer.backend.token_to_id(tokenizer.pad_token)
    if isinstance(module, ClapTextModelWithProjection) and pad != module.config.pad_token_id:
        raise InputError(
            f"the tokenizer's padding token {tokenizer.pad_token!r} is {pad}, and the {name} "
            f"counts positions from {module.config.pad_token_id}; take both from one checkpoint"
        )


def conditions(
    text_encoder: Component, tokenizer: CaptionTokenizer, captions: Sequence[str]
) -> Condition:
    """The conditions of captions, stacked on a leading axis of n.

    A caption's condition is a function of it alone: captions are encoded in batches of one size,
    and one program is compiled for all of them.

    Returns:
      numpy float32. With CLIP, `text` (n, length, hidden): the last hidden states of the padded
      caption, without a mask, as Stable Diffusion feeds them to its UNet. With CLAP, `embedding`
      (n, projection) of unit norm, as AudioLDM feeds it.

    Raises:
      InputError: no captions, or a tokenizer that does not fit the text encoder.
    """
    _check_fit(text_encoder, tokenizer)
    ids, mask = token_ids(tokenizer, captions)
    known = text_encoder.module.config.vocab_size
    if ids.max() >= known:
        token = tokenizer.backend.id_to_token(int(ids.max()))
        raise InputError(
            f"token {token!r} is {ids.max()}, and the text encoder knows {known} tokens; take "
            f"tokenizer and text encoder from one checkpoint"
        )
    made = []
    for start in range(0, len(ids), _BATCH):
        rows = np.minimum(np.arange(start, start + _BATCH), len(ids) - 1)
        batch = jnp.asarray(ids[rows]), jnp.asarray(mask[rows])
        states = _encode(text_encoder.module, text_encoder.params, *batch)
        made.append(np.asarray(states, np.float32))
    values = np.concatenate(made)[: len(ids)]
    if isinstance(text_encoder.module, CLIPTextModel):
        return Condition(text=values)
    return Condition(embedding=values)
