"""Checkpoint folders and inputs made from a seed, the same in every library and version."""

import json
import math
import zlib

import numpy as np
from safetensors.numpy import save_file

TRANSFORMERS = ("SpeechT5HifiGan", "CLIPTextModel", "ClapTextModelWithProjection")
LIBRARY_KEYS = {name: ("architectures", [name]) for name in TRANSFORMERS}


def _normal(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    # RandomState's streams are frozen (NEP 19), so golden outputs stay valid; Generator's are not.
    state = np.random.RandomState(zlib.crc32(f"{seed}/{name}".encode()))
    return state.standard_normal(shape).astype(np.float32)


def random_state(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """A state dict that no two swapped tensors leave unchanged: norms and biases vary too."""
    state = {}
    for name, shape in shapes.items():
        draw = _normal(name, tuple(shape), seed)
        if len(shape) > 1:
            draw /= math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight") or name == "scale":
            draw = 1.0 + 0.2 * draw
        else:
            draw *= 0.2
        state[name] = draw.astype(np.float32)
    return state


def full_config(case):
    key, value = LIBRARY_KEYS.get(case.class_name, ("_class_name", case.class_name))
    return {key: value, **case.config}


def write_component(folder, case, state):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(full_config(case)))
    stem = "model" if case.class_name in LIBRARY_KEYS else "diffusion_pytorch_model"
    save_file(state, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    return folder


def _captions(case, seed):
    """Captions of uneven lengths: a start token, words, an end token, padding."""
    (length,), config = case.size, case.config
    rng = np.random.RandomState(zlib.crc32(f"{seed}/ids".encode()))
    # The first fills its row; each next one is about two thirds as long.
    lengths = [max(3, round(length * (2 / 3) ** row)) for row in range(case.batch)]
    if case.class_name == "ClapTextModelWithProjection":
        start, end, pad, words = 0, 2, 1, (3, config.get("vocab_size", 50265))
    elif config["eos_token_id"] == 2:
        end = config.get("vocab_size", 49408) - 1
        start, pad, words = end - 1, end, (0, end - 1)
    else:
        end, start, pad = config["eos_token_id"], 0, 3
        words = (end + 1, config["vocab_size"])
    ids = np.full((case.batch, length), pad, np.int32)
    for row, n in enumerate(lengths):
        ids[row, :n] = [start, *rng.randint(*words, size=n - 2), end]
    if not case.masked:
        return {"ids": ids}
    return {"ids": ids, "mask": np.arange(length)[None] < np.array(lengths)[:, None]}


def inputs(case, seed=0):
    """Inputs of a case in torch's layout (NCHW), as a dict of numpy arrays."""

    def draw(name, *shape):
        return _normal(name, shape, seed)

    config, batch = case.config, case.batch
    if case.class_name == "SpeechT5HifiGan":
        return {"mel": draw("mel", batch, *case.size, config["model_in_dim"])}
    if case.class_name in ("CLIPTextModel", "ClapTextModelWithProjection"):
        return _captions(case, seed)
    if case.class_name == "AutoencoderKL":
        factor = 2 ** (len(config["block_out_channels"]) - 1)
        latent = [max(1, n // factor) for n in case.size]
        return {
            "x": draw("x", batch, config.get("in_channels", 3), *case.size),
            "z": draw("z", batch, config.get("latent_channels", 4), *latent),
        }
    channels = config.get("in_channels", 4)
    made = {
        "x0": draw("x0", batch, channels, *case.size),
        "noise": draw("noise", batch, channels, *case.size),
        "t": np.array([3, 981, 500, 250][:batch], np.int32),
    }
    if "class_embed_type" in config:
        labels = draw("labels", batch, config["projection_class_embeddings_input_dim"])
        made["class_labels"] = labels / np.linalg.norm(labels, axis=-1, keepdims=True)
    if case.tokens is not None:
        dim = config["cross_attention_dim"]
        dim = dim[0] if isinstance(dim, list) else dim
        made["encoder_hidden_states"] = draw("text", batch, case.tokens, dim)
    if case.masked:
        lengths = 1 + np.arange(batch) * 2
        made["encoder_attention_mask"] = np.arange(case.tokens)[None] < lengths[:, None]
    return made
