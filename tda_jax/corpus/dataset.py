"""An encoded corpus as a TFDS dataset (array_record, without TensorFlow): written once, read by id.

Any TFDS user reads it with `tfds.data_source`. The split "train" holds what the model was trained
on, "held_out" the decoys. A row is one window of a track; README and `Row` name what it holds.
"""

import itertools
import json
import shutil
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float

from tda_jax import compressed, fingerprint
from tda_jax.columns import Column
from tda_jax.corpus import stored
from tda_jax.errors import InputError
from tda_jax.examples import Corpus, corpus_of, first_frames
from tda_jax.models.denoiser import Condition
from tda_jax.places import Place

MEMBERS, DECOYS = "train", "held_out"
_MADE_OF = "made_of"
_PARTS = Condition._fields
_ARRAYS = ("mean", "std", "log_mel")
_IN_A_SHARD = 2048  # rows


class Row(NamedTuple):
    """One window of a track.

    Attributes:
        id: of the window; the track's own where it has one window.
        track: the id of the track.
        member: whether the model was trained on it.
        start: of the window within the track, in seconds.
        mean: (frames, bins, channels), of the latent's posterior, in the network's scaling.
        std: the same for its standard deviation.
        log_mel: of the window, pooled over time; see `audio.mel.pooled`.
        frames: latent frames from the first that see music; the rest see padding alone.
        captions: of the track, one or more.
        condition: of the model for each caption: parts with a leading axis of captions.
        metadata: of the track, as it stands in the user's own file.
    """

    id: str
    track: str
    member: bool
    start: float
    mean: Float[np.ndarray, "frames bins channels"]
    std: Float[np.ndarray, "frames bins channels"]
    log_mel: Float[np.ndarray, "2 mels"]
    frames: int
    captions: Sequence[str]
    condition: Condition
    metadata: Mapping[str, Any]


def write_dataset(
    folder: Path, members: Iterable[Row], decoys: Iterable[Row], source: Mapping[str, Any]
) -> None:
    """Writes the dataset; it is there as a whole or not at all.

    Args:
        folder: new, or that of the same dataset, which then stays as it is.
        members: windows of tracks that the model was trained on, read once and one by one.
        decoys: likewise, of tracks that it was not; ids are each there once.
        source: what decides the rows, kept in the dataset's metadata.

    Raises:
        InputError: there are no rows; the folder holds a dataset made from something else.
    """
    here = fingerprint.plain(source, "source")
    if (folder / "dataset_info.json").exists():
        remedy = f"Delete {folder} to pack it again, or give another folder"
        fingerprint.refuse_other(
            str(folder), _builder(folder).info.metadata[_MADE_OF], here, remedy
        )
        return
    sides = {MEMBERS: iter(members), DECOYS: iter(decoys)}
    firsts = {name: row for name, side in sides.items() for row in itertools.islice(side, 1)}
    if not firsts:
        raise InputError(f"{folder}: no track is left to write; see why each was skipped")
    splits = {name: itertools.chain([row], sides[name]) for name, row in firsts.items()}
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # what a kill left
    with _writing(folder):
        part.mkdir(parents=True)
        writer = tfds.core.SequentialWriter(
            _info(part, next(iter(firsts.values())), here), _IN_A_SHARD, file_format="array_record"
        )
        writer.initialize_splits(list(splits))
    for name, rows in splits.items():
        for some in iter(lambda rows=rows: list(itertools.islice(rows, stored.AT_A_TIME)), []):
            with _writing(folder):
                writer.add_examples({name: [_stored(row) for row in some]})
    with _writing(folder):
        writer.close_all()
        part.rename(folder)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # array_record raises the latter for a full disk
        raise InputError(
            f"{folder}: cannot be written ({error}); free space, or mend its permissions"
        ) from error


def _info(folder: Path, first: Row, source: Any) -> tfds.core.DatasetInfo:
    identity = tfds.core.DatasetIdentity(
        "latents", tfds.core.Version("1.0.0"), str(folder), module_name=__name__
    )
    return tfds.core.DatasetInfo(
        builder=identity,
        description="Latents and conditions of a corpus of music.",
        features=_features(first),
        metadata=tfds.core.MetadataDict({_MADE_OF: source}),
        disable_shuffling=True,
    )


def _stored(row: Row) -> dict[str, Any]:
    kept = row._asdict() | {"metadata": json.dumps(row.metadata)}
    parts = {k: v for k, v in kept.pop("condition")._asdict().items() if v is not None}
    return kept | {"captions": list(row.captions)} | parts


def made_of(folder: Place) -> Any:
    """What a dataset was made from."""
    return _builder(folder).info.metadata[_MADE_OF]


def is_own(folder: Place) -> bool:
    """Whether a folder holds a dataset that this module wrote."""
    return stored.is_dataset(folder) and _MADE_OF in (stored.opened(folder).info.metadata or {})


def read_rows(folder: Place) -> Iterator[Row]:
    """The rows of a dataset, members first.

    Raises:
        InputError: the folder holds no dataset that this module wrote.
    """
    yield from map(_row, stored.in_order(*_reader(folder)))


def read_dataset(folder: Place) -> Corpus:
    """A dataset as a corpus to score: a track for each window and caption.

    The latent is the posterior's mean. The metadata of each names its `track`, the `caption` and
    the `window_start`. Latents and conditions are read when they are asked for, once here to be
    checked.

    Raises:
        InputError: see `read_rows`.
    """
    read, n = _reader(folder)
    first = _row(read(np.array([0]))[0])
    ids, facts = [], array("q")

    def told() -> Iterator[Mapping[str, Any]]:
        for window, row in enumerate(map(_row, stored.in_order(read, n))):
            for caption in range(len(row.captions)):
                ids.append(_unit(row, caption))
                facts.extend([row.member, row.frames, window, caption])
                yield _carried(row, caption)

    metadata = compressed.compress(told())
    members, frames, window, caption = np.array(facts, np.int64).reshape(-1, 4).T
    latent, condition = _columns(read, first, window, caption)
    masks = first_frames(frames, latent.shape[1])
    return corpus_of(ids, latent, condition, masks, members.astype(bool), metadata)


def read_log_mels(folder: Place) -> dict[str, Float[np.ndarray, "2 mels"]]:
    """The pooled log-mel of each unit of `read_dataset`, by its id.

    Raises:
        InputError: see `read_rows`.
    """
    rows = read_rows(folder)
    return {_unit(row, i): row.log_mel for row in rows for i in range(len(row.captions))}


def _unit(row: Row, i: int) -> str:
    """The id of a window with one of its captions; the window's own where there is only one."""
    return f"{row.id} caption {i + 1}" if len(row.captions) > 1 else row.id


def _carried(row: Row, i: int) -> dict[str, Any]:
    own = {"track": row.track, "caption": row.captions[i], "window_start": row.start}
    return {**row.metadata, **own}


def _reader(folder: Place) -> tuple[stored.Read, int]:
    """Positions, of members first, -> their rows as they are stored; and how many there are."""
    builder = _builder(folder)
    splits = [s for s in (MEMBERS, DECOYS) if s in builder.info.splits]
    read, lengths = stored.reader(folder, builder, splits)
    return read, sum(lengths)


def _columns(
    read: stored.Read, first: Row, window: np.ndarray, caption: np.ndarray
) -> tuple[Column, Condition]:
    """Latents and conditions of units, each one caption of one window."""
    arrays = (first.mean, first.std, first.log_mel, *jax.tree.leaves(first.condition))
    touched = 2 * sum(np.asarray(x).nbytes for x in arrays)  # as it is stored, and read
    latest = stored.remembered(read)

    def rows_of(units: np.ndarray) -> tuple[list[stored.Stored], np.ndarray]:
        windows, which = np.unique(window[units], return_inverse=True)
        return latest(windows), which

    def latents(units: np.ndarray) -> np.ndarray:
        rows, which = rows_of(units)
        return np.stack([rows[w]["mean"] for w in which])

    def part(name: str, like: np.ndarray | None) -> Column | None:
        if like is None:
            return None

        def read(units: np.ndarray) -> np.ndarray:
            rows, which = rows_of(units)
            return np.stack([rows[w][name][c] for w, c in zip(which, caption[units], strict=True)])

        return Column((len(window), *like.shape[1:]), like.dtype, read, touched)

    parts = (part(name, getattr(first.condition, name)) for name in _PARTS)
    return Column((len(window), *first.mean.shape), first.mean.dtype, latents, touched), Condition(
        *parts
    )


def _row(found: stored.Stored) -> Row:
    text = stored.text
    condition = Condition(*(found.get(part) for part in _PARTS))
    return Row(
        text(found["id"]),
        text(found["track"]),
        bool(found["member"]),
        float(found["start"]),
        found["mean"],
        found["std"],
        found["log_mel"],
        int(found["frames"]),
        [text(c) for c in found["captions"]],
        condition,
        json.loads(text(found["metadata"])),
    )


def _features(row: Row) -> tfds.features.FeaturesDict:
    """The features of rows like this one; the number of captions may differ."""

    def array(x: np.ndarray, shape: tuple[int | None, ...]) -> tfds.features.Tensor:
        # As bytes: a list of floats takes seven times as long to write.
        return tfds.features.Tensor(
            shape=shape, dtype=x.dtype, encoding=tfds.features.Encoding.BYTES
        )

    parts = {k: np.asarray(v) for k, v in row.condition._asdict().items() if v is not None}
    conditions = {name: array(x, (None, *x.shape[1:])) for name, x in parts.items()}
    text = tfds.features.Text()
    return tfds.features.FeaturesDict(
        {
            "id": text,
            "track": text,
            "member": tfds.features.Scalar(np.bool_),
            "start": tfds.features.Scalar(np.float32),
            **{name: array(x, x.shape) for name in _ARRAYS for x in [getattr(row, name)]},
            "frames": tfds.features.Scalar(np.int32),
            "captions": tfds.features.Sequence(text),
            **conditions,
            "metadata": text,
        }
    )


def _builder(folder: Place) -> Any:
    found = stored.opened(folder)
    if _MADE_OF not in (found.info.metadata or {}):
        raise InputError(f"{folder}: a dataset, but not one that `encode_corpus` wrote")
    return found
