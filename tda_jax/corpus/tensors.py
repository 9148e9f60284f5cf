"""A corpus from any TFDS dataset whose features are named as the fields of `arrays`.

    id               text, each once
    latent           (frames, ..., channels) in the network's scaling
    embedding, text, text_mask, mask, log_mel     optional, as in `arrays`
    frames           optional: how many frames from the first are music, instead of a mask
    member           optional: false for a decoy; else the split "train" holds the members, and
                     every other split decoys

Other features of text or of a single number are carried along to the results. The dataset is of
array_record, which can be read by position; TFDS and `dataset` write such.
"""

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float

from tda_jax import compressed
from tda_jax.columns import Column
from tda_jax.corpus import fields, stored
from tda_jax.corpus.assembly import (
    LOG_MEL,
    NAMES,
    Told,
    assemble,
    channels_last,
    refuse_layout,
    refuse_log_mels,
    refuse_shapes,
)
from tda_jax.errors import InputError
from tda_jax.examples import Corpus

MEMBERS = "train"
_ID, _FRAMES, _MEMBER = "id", "frames", "member"


class _Source(NamedTuple):
    """An open dataset: its splits, their lengths, its tensors and the rest of its features."""

    read: stored.Read
    splits: list[str]
    lengths: list[int]
    tensors: Mapping[str, fields.Field]
    others: list[str]


def read_tensors(folder: Path, layout: str = "HWC") -> Corpus:
    """A corpus, of which latents, conditions and masks are read when they are asked for.

    All are read once here, to be checked. Those of 16 bits become float32.

    Args:
        folder: of the dataset, with `dataset_info.json`.
        layout: of the latents: "HWC" for channels last, "CHW" for channels first.

    Raises:
        InputError: there is no such dataset, or it cannot be read by position; it has no ids or
            latents, or an array under a name that is no field; see `arrays.read_arrays`.
    """
    refuse_layout(layout)
    source = _open(folder)
    found = {name: field for name, field in source.tensors.items() if name != LOG_MEL}
    shape = channels_last(found["latent"].shape, layout)
    refuse_shapes(found, shape)
    if "mask" in found and _FRAMES in source.others:
        raise InputError(f"{folder}: has frames and a mask too; write it with one of them")
    ids, members, frames = [], array("b"), array("q")
    of_row = np.repeat([split == MEMBERS for split in source.splits], source.lengths)

    def carried() -> Iterator[Mapping[str, Any]]:
        for row, member in zip(_rows(source), of_row, strict=True):
            ids.append(stored.text(row[_ID]))
            members.append(bool(row.get(_MEMBER, member)))
            frames.append(int(row.get(_FRAMES, shape[0])))
            yield {name: _plain(row[name]) for name in source.others if name != _FRAMES}

    metadata = compressed.compress(carried())
    _refuse_frames(folder, ids, frames, shape[0])
    latest = stored.remembered(source.read)
    touched = 2 * sum(math.prod(x.shape) * x.dtype.itemsize for x in source.tensors.values())
    columns = {
        name: _column(latest, name, field, len(ids), touched) for name, field in found.items()
    }
    places = {name: field.place for name, field in found.items()}
    return assemble(ids, columns, places, layout, Told(frames, members, metadata))


def read_log_mels(folder: Path) -> dict[str, Float[np.ndarray, "2 mels"]]:
    """The pooled log-mels of a dataset by id; empty where it holds none.

    Raises:
        InputError: see `read_tensors`; they are misshapen.
    """
    source = _open(folder)
    if LOG_MEL not in source.tensors:
        return {}
    refuse_log_mels(source.tensors[LOG_MEL])
    return {stored.text(row[_ID]): row[LOG_MEL] for row in _rows(source)}


def _rows(source: _Source) -> Iterator[stored.Stored]:
    return stored.in_order(source.read, sum(source.lengths))


def _open(folder: Path) -> _Source:
    builder = stored.opened(folder)
    features = dict(builder.info.features.items())
    if missing := [name for name in (_ID, "latent") if name not in features]:
        raise InputError(
            f"{folder}: its features are {sorted(features)}, without {missing[0]!r}; write it with "
            "the names of a folder of arrays: id, latent, embedding, text, text_mask, mask"
        )
    tensors = {}
    for name, feature in features.items():
        tensor = isinstance(feature, tfds.features.Tensor)
        if tensor and not feature.shape:
            continue  # text or a single number
        if name not in (*NAMES, LOG_MEL) or not tensor:
            raise InputError(
                f"{folder}: its feature {name!r} ({type(feature).__name__} {feature.shape}) is no "
                f"field; the fields are Tensors {(*NAMES, LOG_MEL)}. Write it as one of them, or "
                "leave it out"
            )
        if None in feature.shape or 0 in feature.shape:
            raise InputError(
                f"{folder}: {name} has the shape {feature.shape}; pad or cut it to one shape, with "
                "axes of 1 or more"
            )
        kind = fields.held(np.dtype(feature.np_dtype))
        tensors[name] = fields.Field(folder / name, feature.shape, kind, frozenset())
    if "latent" not in tensors:
        raise InputError(f"{folder}: its latent is no array; give (frames, ..., channels)")
    splits = sorted(builder.info.splits, key=lambda name: (name != MEMBERS, name))
    read, lengths = stored.reader(folder, builder, splits)
    if not sum(lengths):
        raise InputError(f"{folder}: holds no tracks; give one at least")
    others = [n for n in features if n not in tensors and n not in (_ID, _MEMBER)]
    return _Source(read, splits, lengths, tensors, others)


def _column(read: stored.Read, name: str, field: fields.Field, n: int, touched: int) -> Column:
    def rows(some: np.ndarray) -> np.ndarray:
        return np.stack([row[name] for row in read(some)]).astype(field.dtype)

    return Column((n, *field.shape), field.dtype, rows, touched)


def _plain(value: Any) -> Any:
    """Text or a number of a row, as JSON keeps it."""
    return stored.text(value) if isinstance(value, bytes) else np.asarray(value).item()


def _refuse_frames(folder: Path, ids: Sequence[str], frames: Sequence[int], length: int) -> None:
    for name, kept in zip(ids, frames, strict=True):
        if not 1 <= kept <= length:
            raise InputError(
                f"{folder}: frames of {name!r} is {kept}, but its latent has {length}; "
                f"give 1 .. {length}"
            )
