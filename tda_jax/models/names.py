"""Torch state-dict names and layouts ↔ Flax paths and layouts, one to one and in both directions.

The Flax tree is the specification: each of its leaves asks for exactly one torch tensor, whose
name and shape follow from the leaf's path and shape.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from tda_jax.errors import InputError

# An embedding's table has one row for each token in both libraries: it is not transposed.
_LEAF_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}

# Flax axis i comes from torch axis FORWARD[ndim][i].
_FORWARD = {4: (2, 3, 1, 0), 3: (2, 1, 0), 2: (1, 0)}
_TRANSPOSED_CONV = (2, 0, 1)

# Weight norm, in torch's old and new spelling: (magnitude g, direction v).
_WEIGHT_NORM = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


class Slot(NamedTuple):
    """One leaf of a Flax tree and how a torch tensor becomes it."""

    path: str
    torch_name: str
    torch_shape: tuple[int, ...]
    axes: tuple[int, ...]  # Flax axis i comes from torch axis axes[i]
    flipped: bool  # a transposed convolution, whose kernel is reversed in time


def slot(path: str, shape: tuple[int, ...], transposed: str | None) -> Slot:
    """The slot of a leaf; `transposed` matches the paths of transposed convolutions."""
    parent, _, leaf = path.rpartition("/")
    name = f"{parent}/{_LEAF_NAMES[leaf]}" if parent else leaf
    axes = tuple(range(len(shape)))
    flipped = False
    if leaf == "kernel":
        flipped = transposed is not None and re.fullmatch(transposed, path) is not None
        axes = _TRANSPOSED_CONV if flipped else _FORWARD[len(shape)]
    torch_shape = tuple(shape[axes.index(i)] for i in range(len(shape)))
    return Slot(path, name.replace("/", "."), torch_shape, axes, flipped)


def to_flax(slot: Slot, tensor: np.ndarray) -> np.ndarray:
    """A torch tensor in the Flax layout, contiguous float32."""
    turned = tensor.transpose(slot.axes)
    return np.ascontiguousarray(turned[::-1] if slot.flipped else turned, dtype=np.float32)


def to_torch(slot: Slot, leaf: np.ndarray) -> np.ndarray:
    """A Flax leaf in the torch layout, contiguous: the inverse of `to_flax`."""
    turned = leaf[::-1] if slot.flipped else leaf
    return np.ascontiguousarray(turned.transpose(np.argsort(slot.axes)))


class Feed(NamedTuple):
    """The torch tensors that fill one slot: one, or the two of a weight-normalised layer."""

    slot: Slot
    tensors: tuple[str, ...]


def combine(parts: list[np.ndarray]) -> np.ndarray:
    """A weight from its tensor, or from magnitude and direction: g·v/‖v‖, norm over axes 1.. .

    Axis 0 is the output of a convolution and the *input* of a transposed one, as in torch.
    """
    if len(parts) == 1:
        return parts[0]
    magnitude, direction = (p.astype(np.float64) for p in parts)
    norm = np.sqrt(np.sum(direction**2, axis=tuple(range(1, direction.ndim)), keepdims=True))
    return (magnitude * direction / norm).astype(np.float32)


def _canonical(names: Iterable[str], aliases: Mapping[str, str]) -> dict[str, list[str]]:
    """Torch name as the slots know it → the names in the file, magnitude before direction."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        target = name
        for magnitude, direction in _WEIGHT_NORM:
            for ending in (magnitude, direction):
                if name.endswith(ending):
                    target = name.removesuffix(ending) + ".weight"
        for pattern, replacement in aliases.items():
            target = re.sub(pattern, replacement, target)
        found.setdefault(target, []).append(name)
    return found


def _expected_shapes(slot: Slot, files: list[str]) -> list[tuple[int, ...]]:
    if len(files) == 1:
        return [slot.torch_shape]
    return [(slot.torch_shape[0],) + (1,) * (len(slot.torch_shape) - 1), slot.torch_shape]


def _is_complete(files: list[str]) -> bool:
    """One plain tensor, or exactly the two of a weight-normalised layer."""
    if len(files) == 1:
        return not any(files[0].endswith(end) for pair in _WEIGHT_NORM for end in pair)
    return any(
        len(files) == 2 and files[0].endswith(g) and files[1].endswith(v) for g, v in _WEIGHT_NORM
    )


def match(
    slots: Iterable[Slot],
    shapes: Mapping[str, tuple[int, ...]],
    source: str,
    aliases: Mapping[str, str],
) -> list[Feed]:
    """Pairs every slot with its tensors; each tensor is used exactly once.

    Args:
      slots: the leaves to fill.
      shapes: the tensors of the checkpoint and their shapes.
      source: what to call the checkpoint in an error.
      aliases: older torch names, as pattern → replacement.

    Raises:
      InputError: a slot without a tensor, a tensor without a slot, or a shape that differs; the
        message lists the names of each kind.
    """
    found = _canonical(shapes, aliases)
    feeds, missing, misshapen, unexpected = [], [], [], []
    for s in slots:
        files = found.pop(s.torch_name, [])
        if not files:
            missing.append(s.torch_name)
            continue
        if not _is_complete(files):
            unexpected.append(f"{' + '.join(files)} for {s.torch_name}")
            continue
        for name, wanted in zip(files, _expected_shapes(s, files), strict=True):
            if tuple(shapes[name]) != wanted:
                misshapen.append(f"{name} is {tuple(shapes[name])}, not {wanted}")
        feeds.append(Feed(s, tuple(files)))
    unexpected += [name for names in found.values() for name in names]
    _refuse(source, missing, unexpected, misshapen)
    return feeds


def _refuse(source: str, missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
    problems = []
    kinds = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
    for kind, names in kinds:
        if names:
            shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            problems.append(f"{len(names)} {kind} ({shown})")
    if problems:
        raise InputError(
            f"{source}: the weights do not fit the config beside them: {'; '.join(problems)}; "
            f"take config and weights from one and the same checkpoint"
        )
