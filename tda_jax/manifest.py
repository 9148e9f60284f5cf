"""What a store of results is: its manifest, its ids, and how its files are found and opened.

`tda_jax.store` reads and writes the results themselves.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import tensorstore as ts

from tda_jax import fingerprint, places
from tda_jax.errors import InputError
from tda_jax.places import Place

FORMAT = "tda_jax.store 1"
MANIFEST, IDS, DONE = "manifest.json", "ids.json", "done/"
_DTYPES = {"bool", "float16", "bfloat16", "float32", "float64"}
_DTYPES |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_SHOWN = 3  # ids that a message names


class Field(NamedTuple):
    """One result of a track.

    Attributes:
        name: letters, digits, "_", "-" and ".", also the name of a folder.
        shape: of one track's result; () for a number.
        dtype: by name, such as "float32" or "bfloat16".
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


def describe(
    ids: Sequence[str], fields: Sequence[Field], made_of: Mapping[str, Any], chunk: int
) -> dict[str, Any]:
    """The manifest of a store.

    Raises:
        InputError: no ids or fields, or one twice; a field that zarr cannot keep; a chunk below 1;
            `made_of` holds what JSON does not keep.
    """
    names = [field.name for field in fields]
    for kind, given in (("ids", ids), ("fields", names)):
        if not given or len(set(given)) < len(given):
            found = f"{len(given)} {kind}, {len(set(given))} of them distinct"
            raise InputError(f"a store of {found}; give one at least, and each once")
    if chunk < 1:
        raise InputError(f"chunk = {chunk}; give the number of tracks in a chunk, 1 or more")
    for name, shape, dtype in fields:
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise InputError(f"a field named {name!r}; give letters, digits, '_', '-' and '.'")
        if dtype not in _DTYPES or min(shape, default=1) < 1:
            known = f"axes of 1 or more and one of {sorted(_DTYPES)}"
            raise InputError(f"field {name!r} is {dtype}{list(shape)}; give {known}")
    return {
        "format": FORMAT,
        "tracks": len(ids),
        "ids": fingerprint.of_text(*ids),
        "chunk": chunk,
        "fields": {f.name: {"shape": list(f.shape), "dtype": f.dtype} for f in fields},
        "made_of": fingerprint.plain(made_of, "made_of"),
    }


def encode(value: Any) -> bytes:
    """A value as the bytes of a JSON file, the same for equal values."""
    return json.dumps(value, indent=1, sort_keys=True).encode()


def decode(place: str, content: bytes, kind: type, remedy: str) -> Any:
    """A JSON file's value.

    Raises:
        InputError: it is no JSON, or not of this kind (a dict or a list).
    """
    try:
        value = json.loads(content)
    except ValueError as error:
        raise InputError(f"{place}: damaged, no JSON ({error}). {remedy}") from error
    if not isinstance(value, kind):
        raise InputError(f"{place}: damaged, no JSON {kind.__name__}. {remedy}")
    return value


def refuse_other(path: str, files: ts.KvStore, there: Any, here: Any, ids: Sequence[str]) -> None:
    """Refuses a store whose manifest is another one; where its tracks differ, some are named.

    Raises:
        InputError: any entry of the manifests differs.
    """
    remedy = "Give another folder, or delete this one to compute all of it again"
    if there.get("ids") != here["ids"]:
        stored = files.read(IDS).result()
        kept = decode(f"{path}/{IDS}", stored.value or b"[]", list, remedy)
        gone, new = sorted(set(kept) - set(ids)), sorted(set(ids) - set(kept))
        if gone or new:
            remedy = f"Only there: {gone[:_SHOWN]}, only here: {new[:_SHOWN]}. {remedy}"
    fingerprint.refuse_other(path, there, here, remedy)


def listed(files: ts.KvStore, prefix: str) -> list[str]:
    """The keys that begin with a prefix."""
    after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return [key.decode() for key in files.list(ts.KvStore.KeyRange(prefix, after)).result()]


def refuse_orphans(path: str, files: ts.KvStore) -> None:
    """Refuses results without a manifest, since nothing says what they were made from.

    Raises:
        InputError: there is a part of a store and no manifest.
    """
    with failing(path, "cannot be read", "Give a folder, and mend its permissions"):
        if files.read(MANIFEST).result().state != "missing":
            return
        found = [key for prefix in (IDS, DONE, "fields/") for key in listed(files, prefix)]
        # Another process may have begun the store since: it writes the manifest first.
        if not found or files.read(MANIFEST).result().state != "missing":
            return
    raise InputError(
        f"{path}: holds {found[0]} but no {MANIFEST}, so nothing says what its results were made "
        "from. Restore the manifest, or give another folder"
    )


def absolute(path: str | Place) -> str:
    """A folder's absolute path, or a URL as it is, without a slash at its end."""
    return str(path).rstrip("/") if places.is_url(path) else str(Path(path).absolute())


def place(path: str, below: str = "") -> dict[str, Any]:
    """The TensorStore spec of a folder below the store's own."""
    if places.is_url(path):
        spec = ts.KvStore.Spec(f"{path}/").to_json()
        return {**spec, "path": spec["path"] + below}
    return {"driver": "file", "path": f"{path}/{below}"}


def create_file(files: ts.KvStore, key: str, content: bytes) -> bytes:
    """Writes a file unless it is there, and returns what is there then.

    Of several processes that try at once, one writes and all get its content.
    """
    found = files.read(key).result()
    if found.state != "missing":
        return found.value
    if files.write(key, content, if_equal=found.stamp.generation).result().generation:
        return content
    return files.read(key).result().value


def open_arrays(path: str, manifest: Mapping[str, Any], create: bool) -> dict[str, ts.TensorStore]:
    """The zarr arrays of the fields: created if they may be, read-only otherwise.

    Raises:
        InputError: one is missing, or its metadata is damaged or not what the manifest says.
    """
    asked, found = {}, {}
    for name in manifest["fields"]:  # all at once, as a bucket is slow
        with _using(path, name):
            asked[name] = _asked_for(path, name, manifest, create)
    for name, array in asked.items():
        with _using(path, name):
            found[name] = array.result()
    return found


def _using(path: str, field: str) -> AbstractContextManager[None]:
    remedy = "Delete that file and run again what makes the store; no result is lost"
    return failing(f"{path}/fields/{field}/zarr.json", "cannot be used", remedy)


def _asked_for(path: str, field: str, manifest: Mapping[str, Any], create: bool) -> ts.Future:
    spec = manifest["fields"][field]
    metadata = {
        "shape": [manifest["tracks"], *spec["shape"]],
        "data_type": spec["dtype"],
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [manifest["chunk"], *spec["shape"]]},
        },
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    }
    whole = {
        "driver": "zarr3",
        "kvstore": place(path, f"fields/{field}/"),
        "metadata": metadata,
        "store_data_equal_to_fill_value": True,  # a written chunk is always a file
    }
    return ts.open(whole, open=True, create=create, read=True, write=create)


@contextmanager
def failing(where: str, what: str, remedy: str) -> Iterator[None]:
    """Turns what TensorStore raises within into an InputError that names place and remedy."""
    try:
        yield
    except (ValueError, OSError) as error:
        cause = str(error).split(" [tensorstore_spec=")[0]
        raise InputError(f"{where}: {what} ({cause}). {remedy}") from error
