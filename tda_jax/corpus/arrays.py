"""A corpus from a folder of arrays keyed by track id, and back.

    latent/      or latent.npz      (frames, ..., channels) for each track, in the network's scaling
    embedding/   or embedding.npz   (classdim,)             optional
    text/        or text.npz        (tokens, textdim)       optional
    text_mask/   or text_mask.npz   (tokens,)               optional: 1 where there is a token
    mask/        or mask.npz        (frames,)               optional: 1 where a frame is music
    log_mel/     or log_mel.npz     (2, mels), pooled       optional: `audio.mel.pooled`
    metadata.jsonl                  one JSON object a line  optional

Pooled log-mels enter into no score: similarity of sound, which is shown beside the scores, is of
them. A folder holds `<id>.npy` files; in nested folders the id is the path below, "album/song".
An `.npz` has the ids as keys. A line of metadata has `id`, and may have `frames` (how many frames
from the first are music, instead of a mask), `member` (false for a decoy) and anything else, which
is carried along to the results.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from tda_jax import fingerprint
from tda_jax.artifact import whole_file
from tda_jax.columns import Column, by_row, mapped
from tda_jax.corpus import fields
from tda_jax.corpus.metadata import QUERY_FRAMES, Record, read_metadata
from tda_jax.errors import InputError
from tda_jax.examples import Corpus, corpus_of, first_frames, in_memory
from tda_jax.models.denoiser import Condition

LAYOUTS = ("HWC", "CHW")
_METADATA = "metadata.jsonl"
_AXES = {"embedding": 1, "text": 2, "text_mask": 1, "mask": 1}
_NAMES = ("latent", *_AXES)
_LOG_MEL = "log_mel"
_WORDS = {"embedding": "(classdim,)", "text": "(tokens, textdim)"}
_WORDS |= {"text_mask": "(tokens,)", "mask": "(frames,)"}


def read_arrays(folder: Path, layout: str = "HWC") -> Corpus:
    """A corpus, of which latents, conditions and masks are read when they are asked for.

    All are read once here, to be checked. Those of 16 bits become float32.

    Args:
        folder: as this module describes it.
        layout: of the latents: "HWC" for channels last, "CHW" for channels first.

    Raises:
        InputError: a field is missing, unknown or there twice; ids do not match between fields, or
            repeat; an array cannot be read, is misshapen, not finite or no number; a mask has no
            valid frame, or stands beside `frames`; a line of metadata is malformed.
    """
    found, records, shape = _survey(folder, layout)
    return _assemble(found, records, shape, layout)


def read_queries(folder: Path, layout: str = "HWC") -> Corpus:
    """Reads queries: like `read_arrays`, and `query_frames` of the metadata cuts the mask.

    A line with `"query_frames": [start, stop]` asks about frames start .. stop-1 of that query.

    Raises:
        InputError: see `read_arrays`; a range leaves the latent, or holds no valid frame.
    """
    found, records, shape = _survey(folder, layout)
    for name, record in records.items():
        if record.query_frames is not None and record.query_frames[1] > shape[0]:
            raise InputError(
                f"{folder / _METADATA}: {QUERY_FRAMES} of {name!r} is {[*record.query_frames]}, "
                f"but it has {shape[0]} frames; give a part of 0 .. {shape[0]}"
            )
    queries = in_memory(_assemble(found, records, shape, layout))
    masks = np.array(queries.examples.mask)
    for name, mask in zip(queries.ids, masks, strict=True):
        if name in records and records[name].query_frames is not None:
            start, stop = records[name].query_frames
            mask[:start] = mask[stop:] = 0
            if not mask.any():
                raise InputError(
                    f"{folder / _METADATA}: {QUERY_FRAMES} of {name!r} is {[start, stop]}, where "
                    "its mask has no valid frame; give a part that has music"
                )
    return queries._replace(examples=queries.examples._replace(mask=masks))


def read_log_mels(folder: Path) -> dict[str, Float[np.ndarray, "2 mels"]]:
    """The pooled log-mels of a folder by id; empty where it holds none.

    Raises:
        InputError: an array cannot be read, is misshapen or not finite.
    """
    place = fields.find(folder, _LOG_MEL)
    if place is None:
        return {}
    field = fields.read_headers(place)
    if len(field.shape) != 2 or field.shape[0] != 2 or field.dtype.kind != "f":
        raise InputError(f"{place}: {_LOG_MEL} is {field.dtype} {field.shape}; give (2, mels)")
    ids = sorted(field.ids)
    return dict(zip(ids, fields.column(field, ids)[:], strict=True))


def save_log_mels(folder: Path, ids: Sequence[str], rows: Float[np.ndarray, "n 2 mels"]) -> None:
    """Writes pooled log-mels into a folder that `save_arrays` wrote, in place of what was there."""
    with whole_file(folder / f"{_LOG_MEL}.npz") as part:
        _write_npz(part, ids, rows)


def save_arrays(folder: Path, corpus: Corpus) -> None:
    """Writes a corpus as a folder that `read_arrays` reads, with channels last.

    Raises:
        InputError: the folder holds something already; the condition is no `Condition`; an id
            holds a zero byte; a metadata key is one of this layout's own, or a value is not kept
            by JSON.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is not empty; give a new folder, so that no arrays mix")
    condition = corpus.examples.condition
    if zeros := [name for name in corpus.ids if "\0" in name]:
        raise InputError(
            f"the ids {zeros[: fields.SHOWN]} hold a zero byte, which no file keeps; rename them"
        )
    if not isinstance(condition, Condition | None):
        raise InputError(f"a condition of type {type(condition).__name__}; give a Condition")
    lines = [json.dumps(entry) + "\n" for entry in _entries(corpus)]
    parts = {"mask": corpus.examples.mask} | (condition._asdict() if condition else {})
    # The latents last: a folder without them is refused, so half a one is never read.
    for name, rows in {**parts, "latent": corpus.examples.latent}.items():
        if rows is not None:
            with whole_file(folder / f"{name}.npz") as part:
                _write_npz(part, corpus.ids, np.asarray(rows))
        if name == "mask":
            with whole_file(folder / _METADATA) as part:
                part.write_text("".join(lines), encoding="utf-8")


def _survey(
    folder: Path, layout: str
) -> tuple[dict[str, fields.Field], dict[str, Record], tuple[int, ...]]:
    """Fields, metadata and the shape (frames, ..., channels) of a latent, from headers alone."""
    if layout not in LAYOUTS:
        raise InputError(f"layout = {layout!r}; choose one of {LAYOUTS}")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds latent/ or latent.npz")
    _refuse_unknown(folder)
    places = {name: fields.find(folder, name) for name in _NAMES}
    if places["latent"] is None:
        raise InputError(f"{folder}: no latent/ and no latent.npz in it; put the latents there")
    found = {name: fields.read_headers(place) for name, place in places.items() if place}
    path = folder / _METADATA
    records = read_metadata(path) if path.exists() else {}
    known = {str(field.place): field.ids for field in found.values()}
    if path.exists():
        known[str(path)] = frozenset(records)
    _refuse_mismatch(known)
    shape = found["latent"].shape
    shape = (*shape[1:], shape[0]) if layout == "CHW" else shape
    _refuse_shapes(found, shape)
    _refuse_frames(path, "mask" in found, records, shape[0])
    return found, records, shape


def _assemble(
    found: Mapping[str, fields.Field],
    records: Mapping[str, Record],
    shape: tuple[int, ...],
    layout: str,
) -> Corpus:
    ids = sorted(found["latent"].ids)
    arrays = {name: fields.column(field, ids) for name, field in found.items()}
    if layout == "CHW":
        arrays["latent"] = mapped(lambda x: np.moveaxis(x, 1, -1), arrays["latent"])
    if "text_mask" in arrays:
        arrays["text_mask"] = _tokens(found["text_mask"].place, ids, arrays["text_mask"])
    masks = arrays.get("mask")
    if masks is None:
        kept = (records[name].frames if name in records else None for name in ids)
        masks = first_frames([shape[0] if k is None else k for k in kept], shape[0])
    parts = (arrays.get(name) for name in Condition._fields)
    members = np.array([records[name].member if records else True for name in ids])
    metadata = [records[name].carried if records else {} for name in ids]
    return corpus_of(ids, arrays["latent"], Condition(*parts), masks, members, metadata)


def _tokens(place: Path, ids: Sequence[str], masks: Column) -> Column:
    """Text masks as bools."""
    odd = by_row(lambda x: ~((x == 0) | (x == 1)).all(axis=1), masks)
    empty = by_row(lambda x: ~(x == 1).any(axis=1), masks)
    for bad, words in ((odd, "hold values beside 0 and 1"), (empty, "keep no token")):
        if bad.any():
            names = [ids[i] for i in np.flatnonzero(bad)[: fields.SHOWN]]
            raise InputError(
                f"{place}: {int(bad.sum())} text masks {words}, such as those of {names}; "
                "give 1 where there is a token and 0 where there is padding"
            )
    return mapped(lambda x: x == 1, masks)


def _refuse_unknown(folder: Path) -> None:
    """Refuses arrays under a name that is no field, which would be left out without a word."""
    for path in sorted(folder.iterdir()):
        arrays = path.suffix in (".npy", ".npz") or (path.is_dir() and any(path.rglob("*.npy")))
        names = (*_NAMES, _LOG_MEL)
        known = path.name in names or (path.suffix == ".npz" and path.stem in names)
        if arrays and not known and not path.name.startswith("."):
            raise InputError(
                f"{path}: holds arrays but is no field; the fields are {names}, each a folder of "
                "<id>.npy or an .npz with the ids as keys. Rename it, or move it elsewhere"
            )


def _refuse_mismatch(known: Mapping[str, frozenset[str]]) -> None:
    """Refuses places that do not name the same tracks; the first one is what others must match."""
    (first, wanted), *others = known.items()
    for place, ids in others:
        lacks, more = sorted(wanted - ids), sorted(ids - wanted)
        if lacks or more:
            raise InputError(
                f"{place}: its ids are not those of {first}: {len(lacks)} are missing "
                f"{lacks[: fields.SHOWN]}, {len(more)} are not known {more[: fields.SHOWN]}. "
                "Give the same tracks everywhere"
            )


def _refuse_shapes(found: Mapping[str, fields.Field], shape: tuple[int, ...]) -> None:
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


def _refuse_length(found: Mapping[str, fields.Field], name: str, length: int, what: str) -> None:
    if name in found and found[name].shape != (length,):
        place, has = found[name].place, found[name].shape[0]
        raise InputError(
            f"{place}: {name} has {has} {what} where there are {length}; cut or pad it"
        )


def _refuse_frames(path: Path, masked: bool, records: Mapping[str, Record], length: int) -> None:
    for name, record in records.items():
        if record.frames is not None and masked:
            raise InputError(
                f"{path}: gives frames for {name!r}, but there is a mask too; keep one of them"
            )
        if record.frames is not None and record.frames > length:
            raise InputError(
                f"{path}: frames of {name!r} is {record.frames}, but its latent has {length}; "
                f"give 1 .. {length}"
            )


def _entries(corpus: Corpus) -> Iterator[dict[str, Any]]:
    for name, member, more in zip(corpus.ids, corpus.members, corpus.metadata, strict=True):
        if clash := sorted({"id", "frames", "member"} & more.keys()):
            raise InputError(f"the metadata of {name!r} has the key {clash[0]!r}; rename it")
        yield {"id": name, "member": bool(member), **fingerprint.plain(more, f"metadata of {name}")}


def _write_npz(path: Path, ids: Sequence[str], rows: np.ndarray) -> None:
    # Not numpy.savez: it takes ids as keyword arguments, so that "file" could not be one.
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name, row in zip(ids, rows, strict=True):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asarray(row), allow_pickle=False)
