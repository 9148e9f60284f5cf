"""Fields of tracks, wherever they were read from, put together as a corpus."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tda_jax.columns import Column, by_row, mapped
from tda_jax.corpus import fields
from tda_jax.errors import InputError
from tda_jax.examples import Corpus, corpus_of, first_frames
from tda_jax.models.denoiser import Condition

LAYOUTS = ("HWC", "CHW")
LOG_MEL = "log_mel"
_AXES = {"embedding": 1, "text": 2, "text_mask": 1, "mask": 1}
NAMES = ("latent", *_AXES)
_WORDS = {"embedding": "(classdim,)", "text": "(tokens, textdim)"}
_WORDS |= {"text_mask": "(tokens,)", "mask": "(frames,)"}


class Told(NamedTuple):
    """What is said of each track beside its arrays.

    Attributes:
        frames: how many frames from the first are music; None where that is not said.
        members: whether the model was trained on it.
        carried: what goes along to the results.
    """

    frames: Sequence[int | None]
    members: Sequence[bool]
    carried: Sequence[Mapping[str, Any]]


def refuse_layout(layout: str) -> None:
    """Refuses a layout of latents that is not known."""
    if layout not in LAYOUTS:
        raise InputError(f"layout = {layout!r}; choose one of {LAYOUTS}")


def channels_last(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The shape (frames, ..., channels) of latents that are stored in a layout."""
    return (*shape[1:], *shape[:1]) if layout == "CHW" else shape


def assemble(
    ids: Sequence[str],
    arrays: Mapping[str, Column],
    places: Mapping[str, Path],
    layout: str,
    told: Told,
) -> Corpus:
    """The corpus of some fields, which passed `refuse_shapes`; all are read, to be checked.

    Args:
        ids: of the tracks.
        arrays: by field, with a row for each track.
        places: where each field lies, for messages.
        layout: of the latents.
        told: of each track.

    Raises:
        InputError: a text mask holds other values than 0 and 1, or no token; see `corpus_of`.
    """
    arrays = dict(arrays)
    if layout == "CHW":
        arrays["latent"] = mapped(lambda x: np.moveaxis(x, 1, -1), arrays["latent"])
    if "text_mask" in arrays:
        arrays["text_mask"] = _tokens(places["text_mask"], ids, arrays["text_mask"])
    length, masks = arrays["latent"].shape[1], arrays.get("mask")
    if masks is None:
        masks = first_frames([length if k is None else k for k in told.frames], length)
    condition = Condition(*(arrays.get(name) for name in Condition._fields))
    members = np.asarray(told.members, bool)
    return corpus_of(ids, arrays["latent"], condition, masks, members, told.carried)


def refuse_shapes(found: Mapping[str, fields.Field], shape: tuple[int, ...]) -> None:
    """Refuses fields of a wrong kind or shape, from their headers.

    Args:
        found: by name.
        shape: of a latent, channels last.

    Raises:
        InputError: names the field.
    """
    for name, field in found.items():
        real = field.dtype.kind == "f"
        if not real and (name not in ("text_mask", "mask") or field.dtype.kind not in "biu"):
            raise InputError(f"{field.place}: {name} is {field.dtype}; give floating numbers")
        if name in _AXES and len(field.shape) != _AXES[name]:
            raise InputError(
                f"{field.place}: {name} has the shape {field.shape}; give {_WORDS[name]}"
            )
    if len(shape) < 2:
        where = found["latent"].place
        raise InputError(f"{where}: latents have the shape {shape}; give (frames, ..., channels)")
    _refuse_length(found, "mask", shape[0], "frames")
    if "text_mask" in found:
        if "text" not in found:
            raise InputError(f"{found['text_mask'].place}: a mask of no text; give text too")
        _refuse_length(found, "text_mask", found["text"].shape[0], "tokens")


def refuse_log_mels(field: fields.Field) -> None:
    """Refuses pooled log-mels that are none."""
    if len(field.shape) != 2 or field.shape[0] != 2 or field.dtype.kind != "f":
        raise InputError(f"{field.place}: {LOG_MEL} is {field.dtype} {field.shape}; give (2, mels)")


def _tokens(place: Path, ids: Sequence[str], masks: Column) -> Column:
    """Text masks as bools."""

    def faults(x: np.ndarray) -> np.ndarray:
        odd, empty = ~((x == 0) | (x == 1)).all(axis=1), ~(x == 1).any(axis=1)
        return np.stack([odd, empty], axis=1)

    odd, empty = by_row(faults, masks).T
    for bad, words in ((odd, "hold values beside 0 and 1"), (empty, "keep no token")):
        if bad.any():
            names = [ids[i] for i in np.flatnonzero(bad)[: fields.SHOWN]]
            raise InputError(
                f"{place}: {int(bad.sum())} text masks {words}, such as those of {names}; "
                "give 1 where there is a token and 0 where there is padding"
            )
    return mapped(lambda x: x == 1, masks)


def _refuse_length(found: Mapping[str, fields.Field], name: str, length: int, what: str) -> None:
    if name in found and found[name].shape != (length,):
        place, has = found[name].place, found[name].shape[0]
        raise InputError(
            f"{place}: {name} has {has} {what} where there are {length}; cut or pad it"
        )
