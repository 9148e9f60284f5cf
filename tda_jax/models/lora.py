"""LoRA weights in diffusers' format, merged into the weights they adapt: W + s·B·A.

Low-rank adaptation: Hu et al. 2021 (arXiv 2106.09685). Both spellings are read: peft's
`lora_A`/`lora_B`, and the `lora.down`/`lora.up` of diffusers before 0.22.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from tda_jax.errors import InputError
from tda_jax.kinds import NUMBER
from tda_jax.models.names import Slot

_SPELLINGS = (
    (r"(?P<module>.+)\.lora_A(\.default)?\.weight", "down"),
    (r"(?P<module>.+)\.lora_B(\.default)?\.weight", "up"),
    (r"(?P<module>.+)\.lora(_linear_layer)?\.(?P<end>down|up)\.weight", None),
    (r"(?P<parent>.+)\.processor\.(?P<leaf>to_\w+?)_lora\.(?P<end>down|up)\.weight", None),
)


_PEFT_ALPHA = 8.0  # of a config that does not say; peft 0.21


class LowRank(NamedTuple):
    """The two factors of one module's change, and its scale."""

    down: np.ndarray  # (rank, inputs, ...)
    up: np.ndarray  # (outputs, rank, ...)
    scale: float


def _parse(key: str) -> tuple[str, str] | None:
    """The module that a key belongs to, and which part of its change it is."""
    for pattern, part in _SPELLINGS:
        m = re.fullmatch(pattern, key)
        if m:
            named = m.groupdict()
            module = named.get("module")
            if module is None:
                leaf = "to_out.0" if named["leaf"] == "to_out" else named["leaf"]
                module = f"{named['parent']}.{leaf}"
            return module, part or named["end"]
    return None


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with safe_open(path, "np") as f:
            metadata = json.loads((f.metadata() or {}).get("lora_adapter_metadata", "{}"))
            if not isinstance(metadata, dict):
                raise ValueError(f"lora_adapter_metadata is {metadata!r}, not an object")
            return {key: f.get_tensor(key) for key in f.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as LoRA weights ({error}); give a safetensors file as "
            f"diffusers' save_lora_weights writes it"
        ) from error


def _config_scale(metadata: Mapping[str, Any], module: str, rank: int) -> float:
    """Alpha / rank from the adapter's config; 1 without a config, as diffusers takes it."""
    if not metadata:
        return 1.0
    alpha = metadata.get("lora_alpha", _PEFT_ALPHA)
    for pattern, value in (metadata.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = value
            break
    return float(alpha) / (rank**0.5 if metadata.get("use_rslora") else rank)


def read_lora(path: Path, part: str) -> dict[str, LowRank]:
    """Reads the changes that a file makes to one component.

    Args:
      path: a safetensors file.
      part: the component, "unet" as a rule; keys without any component's name belong to it.

    Returns:
      Torch module name → its change.

    Raises:
      InputError: the file is not readable, is of another format (kohya, DoRA), changes another
        component too, or lacks one of two factors.
    """
    tensors, metadata = _read(path)
    if not part:
        raise InputError(f"{path}: LoRA weights were given for a model that diffusers has none for")
    own = {k.removeprefix(f"{part}."): v for k, v in metadata.items()}
    alphas = dict(own.get("alpha_pattern") or {}) | {"lora_alpha": own.get("lora_alpha", 1.0)}
    for key, value in alphas.items():
        if not NUMBER.accepts(value):
            raise InputError(f"{path}: {key} is {value!r}, not a finite number; mend its metadata")
    if own.get("use_dora"):
        raise InputError(f"{path}: use_dora is true; DoRA is not supported, only LoRA is")
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in tensors.items():
        if key.endswith(".alpha"):
            raise InputError(
                f"{path}: {key!r} scales a change in a way that diffusers passes over in this "
                f"format; remove these tensors, and give the scale in lora_adapter_metadata"
            )
        if re.match(r"text_encoder(_2)?\.", key):
            raise InputError(
                f"{path}: {key!r} changes a text encoder, which is not loaded here, so scores "
                f"would mix two models; give a file with the {part}'s part only"
            )
        parsed = _parse(key.removeprefix(f"{part}."))
        if parsed is None:
            raise InputError(
                f"{path}: {key!r} is no LoRA weight in diffusers' format; convert the file with "
                f"diffusers' load_lora_weights and save_lora_weights"
            )
        found.setdefault(parsed[0], {})[parsed[1]] = tensor
    return {module: _low_rank(path, module, parts, own) for module, parts in found.items()}


def _low_rank(
    path: Path, module: str, parts: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> LowRank:
    lacking = sorted({"down", "up"} - parts.keys())
    if lacking:
        raise InputError(f"{path}: {module} has no {lacking[0]} factor; the file is not whole")
    down, up = (parts[k].astype(np.float32) for k in ("down", "up"))
    rank = down.shape[0]
    if (
        rank == 0
        or up.ndim != down.ndim
        or up.shape[1] != rank
        or any(n != 1 for n in up.shape[2:])
    ):
        raise InputError(
            f"{path}: the factors of {module} are {down.shape} and {up.shape}, whose ranks do not "
            f"fit; the file is damaged"
        )
    if not (np.isfinite(down).all() and np.isfinite(up).all()):
        raise InputError(f"{path}: the factors of {module} are not finite; the file is damaged")
    return LowRank(down, up, _config_scale(metadata, module, rank))


def check(path: Path, changes: Mapping[str, LowRank], strength: float, slots: list[Slot]) -> None:
    """The strength must be a number, and every change must fit a weight of the model.

    Raises:
      InputError: lists the modules that the model lacks or that have another shape.
    """
    if not NUMBER.accepts(strength):
        raise InputError(
            f"{path}: its strength is {strength!r}; give a finite number, 1.0 as a rule"
        )
    shapes = {s.torch_name: s.torch_shape for s in slots}
    wrong = [
        f"{module} ({c.up.shape[:1] + c.down.shape[1:]}, model: {shapes.get(f'{module}.weight')})"
        for module, c in changes.items()
        if shapes.get(f"{module}.weight") != c.up.shape[:1] + c.down.shape[1:]
    ]
    if wrong or not changes:
        shown = ", ".join(wrong[:5]) or "no module at all"
        raise InputError(
            f"{path}: {len(wrong)} of its {len(changes)} changes do not fit the model: {shown}; "
            f"use the model that it was trained on"
        )


def merged(weight: np.ndarray, change: LowRank, strength: float) -> np.ndarray:
    """The adapted weight W + strength·scale·B·A, in the torch layout."""
    product = change.up.reshape(change.up.shape[:2]) @ change.down.reshape(len(change.down), -1)
    return weight + np.float32(strength * change.scale) * product.reshape(weight.shape)
