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
from tda_jax.corpus import fields
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
from tda_jax.corpus.metadata import QUERY_FRAMES, Record, read_metadata
from tda_jax.errors import InputError
from tda_jax.examples import Corpus, in_memory
from tda_jax.models.denoiser import Condition

_METADATA = "metadata.jsonl"
_NOTHING = Record(None, True, None, {})  # what a track without a line is


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
    found, records, _ = _survey(folder, layout)
    return _assembled(found, records, layout)


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
    queries = in_memory(_assembled(found, records, layout))
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
    place = fields.find(folder, LOG_MEL)
    if place is None:
        return {}
    field = fields.read_headers(place)
    refuse_log_mels(field)
    ids = sorted(field.ids)
    return dict(zip(ids, fields.column(field, ids)[:], strict=True))


def save_log_mels(folder: Path, ids: Sequence[str], rows: Float[np.ndarray, "n 2 mels"]) -> None:
    """Writes pooled log-mels into a folder that `save_arrays` wrote, in place of what was there."""
    with whole_file(folder / f"{LOG_MEL}.npz") as part:
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
    refuse_layout(layout)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds latent/ or latent.npz")
    _refuse_unknown(folder)
    places = {name: fields.find(folder, name) for name in NAMES}
    if places["latent"] is None:
        raise InputError(f"{folder}: no latent/ and no latent.npz in it; put the latents there")
    found = {name: fields.read_headers(place) for name, place in places.items() if place}
    path = folder / _METADATA
    records = read_metadata(path) if path.exists() else {}
    known = {str(field.place): field.ids for field in found.values()}
    if path.exists():
        known[str(path)] = frozenset(records)
    _refuse_mismatch(known)
    shape = channels_last(found["latent"].shape, layout)
    refuse_shapes(found, shape)
    _refuse_frames(path, "mask" in found, records, shape[0])
    return found, records, shape


def _assembled(
    found: Mapping[str, fields.Field], records: Mapping[str, Record], layout: str
) -> Corpus:
    ids = sorted(found["latent"].ids)
    said = [records.get(name, _NOTHING) for name in ids]
    told = Told([r.frames for r in said], [r.member for r in said], [dict(r.carried) for r in said])
    arrays = {name: fields.column(field, ids) for name, field in found.items()}
    places = {name: field.place for name, field in found.items()}
    return assemble(ids, arrays, places, layout, told)


def _refuse_unknown(folder: Path) -> None:
    """Refuses arrays under a name that is no field, which would be left out without a word."""
    for path in sorted(folder.iterdir()):
        arrays = path.suffix in (".npy", ".npz") or (path.is_dir() and any(path.rglob("*.npy")))
        names = (*NAMES, LOG_MEL)
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
