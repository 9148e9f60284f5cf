"""Results of each track on disk, in chunks of tracks that are there as a whole or not at all.

A store is a folder, or a prefix of a bucket, that holds

    manifest.json    what it was made from, its fields, and how many tracks make a chunk
    ids.json         the tracks, in the order of the rows
    fields/NAME/     a zarr 3 array for each field, with a row for each track
    done/CHUNK.json  the sha256 of a chunk's values, written after them

A chunk without its done-mark is computed again; one that does not match its done-mark is refused.
The manifest fixes the chunks, so neither devices nor processes show in a store. Several processes
may open one store at once and write it, each its own chunks.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts
from jaxtyping import Array, Shaped

from tda_jax import fingerprint
from tda_jax import manifest as layout
from tda_jax.errors import InputError
from tda_jax.manifest import DONE, FORMAT, IDS, MANIFEST, Field
from tda_jax.places import Place

_SHOWN = 5  # chunks that a message names; the rest are counted
_NO_LOSS = "Delete that file and run again what makes the store; no result is lost"
_SPACE = "Free space there, or mend its permissions"

_AT_ONCE = 32  # chunks that are read together

Asked = tuple[ts.Future, dict[str, ts.Future]]  # the done-mark of a chunk, and its fields
Values = Shaped[np.ndarray, "..."] | Shaped[Array, "..."]  # (tracks, *shape of the field)


class Store(NamedTuple):
    """An open store. Made by `open_store` or `load_store`.

    Attributes:
        path: where it lies.
        manifest: what `manifest.json` holds; its entry "made_of" is what the store was made from.
        ids: the tracks, in the order of the rows.
        arrays: by field, of shape (tracks, *shape). Use `read`, which checks what it reads.
        files: the manifest, the ids and the done-marks.
    """

    path: str
    manifest: Mapping[str, Any]
    ids: tuple[str, ...]
    arrays: Mapping[str, ts.TensorStore]
    files: ts.KvStore


def open_store(
    path: str | Place,
    ids: Sequence[str],
    fields: Sequence[Field],
    made_of: Mapping[str, Any],
    chunk: int,
) -> Store:
    """Creates a store, or opens the one that is there to go on with it.

    Args:
        path: a folder, or a URL that TensorStore knows, such as `gs://bucket/prefix`.
        ids: the tracks in the order of the rows, each once.
        fields: what is kept of each track.
        made_of: what decides the results, such as fingerprints of corpus, checkpoint and code,
            and the configuration. Anything that JSON keeps; nested mappings are compared by entry.
        chunk: how many tracks are computed, written and checked together.

    Raises:
        InputError: the store there was made from something else, of other tracks, fields or
            chunks (the message says which, and shows both); it is damaged; the path cannot be
            written; a field cannot be kept; ids repeat.
    """
    path, here = layout.absolute(path), layout.describe(ids, fields, made_of, chunk)
    listed = layout.encode(list(ids))
    with layout.failing(path, "cannot be opened", "Give a folder or a URL that TensorStore knows"):
        files = ts.KvStore.open(layout.place(path)).result()
    layout.refuse_orphans(path, files)
    with layout.failing(path, "cannot be written", _SPACE):
        content = layout.create_file(files, MANIFEST, layout.encode(here))
    there = layout.decode(f"{path}/{MANIFEST}", content, dict, "Restore it, or give another folder")
    layout.refuse_other(path, files, there, here, ids)
    with layout.failing(path, "cannot be written", _SPACE):
        content = layout.create_file(files, IDS, listed)
    if content != listed:
        raise InputError(f"{path}/{IDS}: damaged, not the ids of the manifest. {_NO_LOSS}")
    arrays = layout.open_arrays(path, here, create=True)
    return Store(path, here, tuple(ids), arrays, files)


def load_store(path: str | Place) -> Store:
    """Opens a store to read it; whatever it was made from is in its manifest.

    Raises:
        InputError: there is no store; its manifest, ids or arrays are missing or damaged.
    """
    path = layout.absolute(path)
    with layout.failing(path, "cannot be opened", "Give the folder or the URL of a store"):
        files = ts.KvStore.open(layout.place(path)).result()
        found = {key: files.read(key).result() for key in (MANIFEST, IDS)}
    for key, result in found.items():
        if result.state == "missing":
            raise InputError(f"{path}: no whole store, it lacks {key}. Run again what makes it")
    manifest = layout.decode(
        f"{path}/{MANIFEST}", found[MANIFEST].value, dict, "Restore it, or compute it again"
    )
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path}/{MANIFEST}: of format {manifest.get('format')!r}, not {FORMAT!r}; "
            "read it with the version that wrote it, or compute it again in another folder"
        )
    ids = layout.decode(f"{path}/{IDS}", found[IDS].value, list, _NO_LOSS)
    if fingerprint.of_text(*map(str, ids)) != manifest["ids"]:
        raise InputError(f"{path}/{IDS}: damaged, not the ids of the manifest. {_NO_LOSS}")
    arrays = layout.open_arrays(path, manifest, create=False)
    return Store(path, manifest, tuple(ids), arrays, files)


def missing(store: Store) -> list[int]:
    """The chunks that have no done-mark yet, in rising order."""
    done = _done(store)
    return [i for i in range(chunks(store)) if i not in done]


def chunks(store: Store) -> int:
    """How many chunks there are."""
    return -(-len(store.ids) // store.manifest["chunk"])


def rows(store: Store, chunk: int) -> range:
    """The rows of a chunk, which are positions in `store.ids`.

    Raises:
        InputError: there is no such chunk.
    """
    if not 0 <= chunk < chunks(store):
        raise InputError(f"{store.path}: no chunk {chunk}; it has 0 .. {chunks(store) - 1}")
    size = store.manifest["chunk"]
    return range(chunk * size, min((chunk + 1) * size, len(store.ids)))


def write_chunk(store: Store, chunk: int, values: Mapping[str, Values]) -> None:
    """Writes the results of a chunk, and then marks it as done.

    Writing the same values again changes nothing, or mends them. A chunk has one writer at a time.

    Args:
        store: opened by `open_store`.
        chunk: its number.
        values: for every field (tracks of the chunk, *shape), in the field's dtype. nan is a value.

    Raises:
        InputError: a field is missing or unknown, or has another shape or dtype; the chunk is
            done already with other values, which are kept; the disk refuses.
    """
    here, arrays, key = rows(store, chunk), _checked(store, chunk, values), _mark_key(chunk)
    sums = {name: fingerprint.of_array(x) for name, x in arrays.items()}
    mark = layout.encode(_mark(store, chunk, sums))
    with layout.failing(f"{store.path}: chunk {chunk}", "cannot be written", _SPACE):
        found = store.files.read(key).result()
        if found.state == "missing" or found.value == mark:
            writes = [
                store.arrays[name][here.start : here.stop].write(arrays[name]) for name in sums
            ]
            for write in writes:
                write.result()  # on disk, not only on its way there
        marked = layout.create_file(store.files, key, mark)
    if marked != mark:
        raise InputError(
            f"{store.path}/{key}: chunk {chunk} is done already, with other values, which stay. "
            "To put new ones in their place delete that file and run again"
        )


def read(
    store: Store, names: Sequence[str] | None = None, start: int = 0, stop: int | None = None
) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads rows, and checks every chunk that they touch.

    Args:
        store: where from.
        names: which fields; by default all.
        start: the first row.
        stop: the row after the last; by default the last of all is read.

    Returns:
        For each field an array (stop - start, *shape).

    Raises:
        InputError: there is no such field or row; a chunk is not done, or its data is damaged or
            lost. The message says how to compute just that chunk again.
    """
    names = list(store.arrays) if names is None else list(names)
    stop = len(store.ids) if stop is None else stop
    if unknown := [name for name in names if name not in store.arrays]:
        raise InputError(f"{store.path}: no field {unknown[0]!r}; it has {sorted(store.arrays)}")
    if not 0 <= start <= stop <= len(store.ids):
        raise InputError(f"{store.path}: no rows {start}:{stop}; it has 0:{len(store.ids)}")
    size = store.manifest["chunk"]
    touched = range(start // size, -(-stop // size)) if start < stop else range(0)
    _refuse_undone(store, touched)
    out = {name: np.empty(*_expected(store, name, stop - start)) for name in names}
    for chunk, values in _read_chunks(store, touched, names):
        here = rows(store, chunk)
        first, last = max(start, here.start), min(stop, here.stop)
        for name, found in values.items():
            out[name][first - start : last - start] = found[first - here.start : last - here.start]
    return out


def _read_chunks(
    store: Store, chunks: range, names: Sequence[str]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The values of done chunks, in order; some are asked for at once, as a bucket is slow."""
    asked: deque[tuple[int, Asked]] = deque()
    for chunk in chunks:
        asked.append((chunk, _ask(store, chunk, names)))
        if len(asked) == _AT_ONCE:
            first, reads = asked.popleft()
            yield first, _read_chunk(store, first, reads)
    for chunk, reads in asked:
        yield chunk, _read_chunk(store, chunk, reads)


def _ask(store: Store, chunk: int, names: Sequence[str]) -> Asked:
    """Asks for the done-mark of a chunk and for values of it."""
    here = rows(store, chunk)
    reads = {name: store.arrays[name][here.start : here.stop].read() for name in names}
    return store.files.read(_mark_key(chunk)), reads


def _read_chunk(store: Store, chunk: int, asked: Asked) -> dict[str, np.ndarray]:
    """The values of a done chunk, each as its done-mark says it was written."""
    key, here, (marked, reads) = _mark_key(chunk), rows(store, chunk), asked
    remedy = f"Delete {store.path}/{key} and run again: of the store only that chunk is made again"
    with layout.failing(f"{store.path}: chunk {chunk}", "cannot be read", remedy):
        content = marked.result().value
        values = {name: np.asarray(read.result()) for name, read in reads.items()}
    mark = layout.decode(f"{store.path}/{key}", content, dict, remedy)
    sums = mark.get("sha256")
    whole = isinstance(sums, dict) and sums.keys() == store.arrays.keys()
    if not whole or mark != _mark(store, chunk, sums):
        raise InputError(f"{store.path}/{key}: damaged, or of another store. {remedy}")
    for name, value in values.items():
        if fingerprint.of_array(value) != sums[name]:
            raise InputError(
                f"{store.path}/fields/{name}: chunk {chunk} (rows {here.start}:{here.stop}) is "
                f"damaged or lost, it does not hold the values that were written. {remedy}"
            )
    return values


def _mark(store: Store, chunk: int, sums: Any) -> dict[str, Any]:
    """What a done-mark says. It names its manifest, so that no other store's mark will do."""
    here = rows(store, chunk)
    made_for = fingerprint.of_text(layout.encode(store.manifest).decode())
    return {"manifest": made_for, "rows": [here.start, here.stop], "sha256": sums}


def _mark_key(chunk: int) -> str:
    return f"{DONE}{chunk:08d}.json"


def _done(store: Store) -> set[int]:
    with layout.failing(store.path, "cannot be listed", "Mend its permissions"):
        keys = layout.listed(store.files, DONE)
    matches = (re.fullmatch(rf"{DONE}(\d+)\.json", key) for key in keys)
    return {int(m[1]) for m in matches if m}


def _refuse_undone(store: Store, touched: range) -> None:
    done = _done(store)
    undone = [chunk for chunk in touched if chunk not in done]
    if undone:
        more = f" and {len(undone) - _SHOWN} more" if len(undone) > _SHOWN else ""
        raise InputError(
            f"{store.path}: chunks {undone[:_SHOWN]}{more} are not done yet. "
            "Run again what makes them; only what is missing is computed"
        )


def _expected(store: Store, name: str, count: int) -> tuple[tuple[int, ...], np.dtype]:
    array = store.arrays[name]
    return (count, *array.shape[1:]), array.dtype.numpy_dtype


def _checked(store: Store, chunk: int, values: Mapping[str, Values]) -> dict[str, np.ndarray]:
    """The values as numpy arrays, if they are those that the chunk needs."""
    if values.keys() != store.arrays.keys():
        given, wanted = sorted(values), sorted(store.arrays)
        raise InputError(f"{store.path}: values for the fields {given}; give them for {wanted}")
    arrays = {name: np.asarray(x) for name, x in values.items()}
    for name, x in arrays.items():
        shape, dtype = _expected(store, name, len(rows(store, chunk)))
        if (x.shape, x.dtype) != (shape, dtype):
            raise InputError(
                f"{store.path}: {name} of chunk {chunk} is {x.dtype}{list(x.shape)}; "
                f"give {dtype}{list(shape)}"
            )
    return arrays
