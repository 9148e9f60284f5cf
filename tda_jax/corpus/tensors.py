"""A corpus from any TFDS dataset whose features are named as the fields of `arrays`.

    id               text, each once
    latent           (frames, ..., channels) in the network's scaling
    embedding, text, text_mask, mask, log_mel     optional, as in `arrays`
    frames           optional, a whole number: how many frames from the first are music, instead of
                     a mask
    member           optional, a bool: false for a decoy; else the split "train" holds the members,
                     and every other split decoys

Other features of text, a single number or a class are carried along to the results. The dataset is
of array_record, which can be read by position.
"""

import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float

from tda_jax import compressed
from tda_jax.columns import Column
from tda_jax.corpus import assembly, fields, stored
from tda_jax.errors import InputError
from tda_jax.examples import Corpus
from tda_jax.places import Place

MEMBERS = "train"
_FIELDS = (*assembly.NAMES, assembly.LOG_MEL)
_ID, _FRAMES, _MEMBER = "id", "frames", "member"
_WANTED = {
    _ID: ("a text", ("text",)),
    _FRAMES: ("a whole number", ("i", "u")),
    _MEMBER: ("a bool", ("b",)),
}


class _Source(NamedTuple):
    """An open dataset: its splits and their lengths, its tensors, and how to say the rest."""

    read: stored.Read
    splits: list[str]
    lengths: list[int]
    tensors: Mapping[str, fields.Field]
    has_frames: bool
    carried: Mapping[str, Callable[[Any], Any]]


def read_tensors(folder: Place, layout: str = "HWC") -> Corpus:
    """A corpus, of which latents, conditions and masks are read when they are asked for.

    All are read here, to be checked. Those of 16 bits become float32.

    Args:
        folder: of the dataset, with `dataset_info.json`.
        layout: of the latents: "HWC" for channels last, "CHW" for channels first.

    Raises:
        InputError: there is no such dataset, or it cannot be read by position; it has no ids or
            latents, or an array under a name that is no field; see `arrays.read_arrays`.
    """
    assembly.refuse_layout(layout)
    source = _open(folder)
    found = {name: field for name, field in source.tensors.items() if name != assembly.LOG_MEL}
    shape = assembly.channels_last(found["latent"].shape, layout)
    assembly.refuse_shapes(found, shape)
    if "mask" in found and source.has_frames:
        raise InputError(f"{folder}: has frames and a mask too; write it with one of them")
    ids, members, frames = [], array("b"), array("q")
    of_row = np.repeat([split == MEMBERS for split in source.splits], source.lengths)

    def carried() -> Iterator[Mapping[str, Any]]:
        for row, member in zip(_rows(source), of_row, strict=True):
            ids.append(stored.text(row[_ID]))
            members.append(int(row.get(_MEMBER, member)))
            frames.append(int(row.get(_FRAMES, shape[0])))
            yield {name: plain(row[name]) for name, plain in source.carried.items()}

    metadata = compressed.compress(carried())
    _refuse_frames(folder, ids, frames, shape[0])
    latest = stored.remembered(source.read)
    touched = 2 * sum(math.prod(x.shape) * x.dtype.itemsize for x in source.tensors.values())
    columns = {
        name: _column(latest, name, field, len(ids), touched) for name, field in found.items()
    }
    places = {name: field.place for name, field in found.items()}
    return assembly.assemble(ids, columns, places, layout, assembly.Told(frames, members, metadata))


def read_log_mels(folder: Place) -> dict[str, Float[np.ndarray, "2 mels"]]:
    """The pooled log-mels of a dataset by id; empty where it holds none.

    Raises:
        InputError: see `read_tensors`; they are misshapen.
    """
    source = _open(folder)
    if assembly.LOG_MEL not in source.tensors:
        return {}
    assembly.refuse_log_mels(source.tensors[assembly.LOG_MEL])
    kind = source.tensors[assembly.LOG_MEL].dtype
    return {stored.text(row[_ID]): row[assembly.LOG_MEL].astype(kind) for row in _rows(source)}


def latent_shape(folder: Place, layout: str = "HWC") -> tuple[int, ...]:
    """The shape (frames, ..., channels) of a dataset's latents, of which none is read.

    Raises:
        InputError: see `read_tensors`.
    """
    assembly.refuse_layout(layout)
    return assembly.channels_last(_open(folder).tensors["latent"].shape, layout)


def _rows(source: _Source) -> Iterator[stored.Stored]:
    return stored.in_order(source.read, sum(source.lengths))


def _open(folder: Place) -> _Source:
    builder = stored.opened(folder)
    features = dict(builder.info.features.items())
    if missing := [name for name in (_ID, "latent") if name not in features]:
        raise InputError(
            f"{folder}: its features are {sorted(features)}, without {missing[0]!r}; write it with "
            "the names of a folder of arrays: id, latent, embedding, text, text_mask, mask"
        )
    tensors = {n: f for n, f in features.items() if n in _FIELDS}
    for name, feature in features.items():
        _refuse_feature(folder, name, feature)
    splits = sorted(builder.info.splits, key=lambda name: (name != MEMBERS, name))
    read, lengths = stored.reader(folder, builder, splits)
    if not sum(lengths):
        raise InputError(f"{folder}: holds no tracks; give one at least")
    others = features.keys() - tensors.keys() - {_ID, _FRAMES, _MEMBER}
    return _Source(
        read,
        splits,
        lengths,
        {
            n: fields.Field(folder / n, f.shape, fields.held(np.dtype(f.np_dtype)), frozenset())
            for n, f in tensors.items()
        },
        _FRAMES in features,
        {name: _said(features[name]) for name in sorted(others)},
    )


def _refuse_feature(folder: Place, name: str, feature: Any) -> None:
    """Refuses a feature that cannot be what its name says, or that nobody would read."""
    kind, scalar = _kind(feature), feature.shape == ()
    if name in _FIELDS:
        sound = kind in tuple("biuf") and not scalar and not {None, 0} & set(feature.shape)
        wanted = "a Tensor of one shape, with axes of 1 or more; pad or cut it"
    elif name in _WANTED:
        wanted, allowed = _WANTED[name]
        sound = scalar and kind in allowed
    else:
        sound = scalar and kind is not None
        wanted = f"a field, which are {_FIELDS}, or a text or a number; leave it out"
    if not sound:
        given = f"{type(feature).__name__} of kind {kind!r} and shape {feature.shape}"
        raise InputError(f"{folder}: its feature {name!r} is {given}, and not {wanted}")


def _kind(feature: Any) -> str | None:
    """The kind of a feature's values as numpy calls it, "text" for a text; None of no Tensor."""
    if _is_text(feature):
        return "text"
    tensor = isinstance(feature, tfds.features.Tensor)
    return fields.held(np.dtype(feature.np_dtype)).kind if tensor else None


def _is_text(feature: Any) -> bool:
    return isinstance(feature, tfds.features.Text)


def _said(feature: Any) -> Callable[[Any], Any]:
    """How a value of a feature is said, as JSON keeps it; None for a number that is not finite."""
    if _is_text(feature):
        return stored.text
    if isinstance(feature, tfds.features.ClassLabel):
        return lambda value: feature.int2str(int(value))

    def number(value: Any) -> Any:
        plain = np.asarray(value).item()
        return None if isinstance(plain, float) and not math.isfinite(plain) else plain

    return number


def _column(read: stored.Read, name: str, field: fields.Field, n: int, touched: int) -> Column:
    def rows(some: np.ndarray) -> np.ndarray:
        return np.stack([row[name] for row in read(some)]).astype(field.dtype)

    return Column((n, *field.shape), field.dtype, rows, touched)


def _refuse_frames(folder: Place, ids: Sequence[str], frames: Sequence[int], length: int) -> None:
    for name, kept in zip(ids, frames, strict=True):
        if not 1 <= kept <= length:
            raise InputError(
                f"{folder}: frames of {name!r} is {kept}, but its latent has {length}; "
                f"give 1 .. {length}"
            )
