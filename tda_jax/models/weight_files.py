"""One view of the weight files of a component: safetensors or torch `.bin`, whole or in shards.

Headers are read first and checked in full, so that a bad folder fails before memory is spent.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from tda_jax.errors import InputError
from tda_jax.models import torch_pickle
from tda_jax.strict_json import unique

# In the order of preference: diffusers' names and transformers', safetensors before torch.
_KINDS = (
    ("diffusion_pytorch_model", "safetensors"),
    ("model", "safetensors"),
    ("diffusion_pytorch_model", "bin"),
    ("pytorch_model", "bin"),
)
_STEMS = r"(?:diffusion_pytorch_model|pytorch_model|model)"
_VARIANTS = (
    rf"{_STEMS}(?:\.(?P<variant>[^.]+?))?(?:-\d+-of-\d+)?\.(?:safetensors|bin)",
    rf"{_STEMS}\.(?:safetensors|bin)\.index(?:\.(?P<variant>[^.]+))?\.json",
)
_MAX_EMPTY = 2**48  # elements that the axes beside one of length 0 may count, for numpy's sake
_FETCH = "Fetch the file again"
_DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "BOOL": "?"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"},
}


class TensorInfo(NamedTuple):
    """What a header says of a tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype
    file: Path


class _Place(NamedTuple):
    """Where a tensor lies in a safetensors file; `start` counts bytes from the file's begin."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int


@dataclass(frozen=True)
class WeightFiles:
    """The weight files of one component. Made by `find_weights`.

    Attributes:
        files: the files that hold tensors, in the order in which they are read.
        index: the json that names them; None where there is a single file.
        weight_map: file name by tensor name, as the index says it; empty without an index.
    """

    files: tuple[Path, ...]
    index: Path | None
    weight_map: Mapping[str, str]

    def info(self) -> dict[str, TensorInfo]:
        """Reads the headers of all files, and no tensor.

        Returns:
            Shape, dtype and file of every tensor, by name, in the order of the files.

        Raises:
            InputError: a file is missing, empty, truncated or corrupt, a git-lfs pointer or an
                HTML page; it holds fp8; the index and its shards do not name the same tensors; see
                also `torch_pickle.read_index`.
        """
        found: dict[str, TensorInfo] = {}
        for file in self.files:
            for name, tensor in _header(file).items():
                if name in found:
                    other = found[name].file.name
                    raise InputError(f"{file}: tensor {name!r} is also in {other}. {_FETCH}")
                found[name] = TensorInfo(tensor.shape, tensor.dtype, file)
        if self.index is not None:
            self._check_index(self.index, found)
        return found

    def _check_index(self, index: Path, found: Mapping[str, TensorInfo]) -> None:
        for name, file in self.weight_map.items():
            if name not in found or found[name].file.name != file:
                raise InputError(f"{index}: names tensor {name!r}, which {file} lacks. {_FETCH}")
        for name, info in found.items():
            if name not in self.weight_map:
                missing = f"lacks tensor {name!r}, which {info.file.name} holds"
                raise InputError(f"{index}: {missing}. {_FETCH}")

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Reads tensors one at a time, in the order of the files; takes little memory beside them.

        Args:
            names: which tensors; repetitions count once.

        Returns:
            An iterator over name and array. Arrays own their memory and have the file's dtype.

        Raises:
            InputError: at once for a name that no file holds and for all that `info` refuses; on
                the way for data that is corrupt.
        """
        wanted, info = set(names), self.info()
        if unknown := sorted(wanted - info.keys()):
            file = self.index or self.files[0]
            raise InputError(f"{file}: no tensor {unknown[0]!r}. Ask only for names of info()")
        return self._stream(wanted)

    def _stream(self, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
        for file in self.files:
            places = {name: at for name, at in _header(file).items() if name in wanted}
            reader = torch_pickle.read if file.suffix == ".bin" else _read_safetensors
            yield from reader(file, places)


def find_weights(folder: Path, variant: str | None = None) -> WeightFiles:
    """Finds the weight files of a component.

    Looks for diffusers' safetensors, then transformers', then for the `.bin` of either; of each
    for the single file, then for the index of its shards.

    Args:
        folder: a component's folder, such as `unet` of a pipeline.
        variant: the infix of the file names, such as `fp16` or `non_ema`; None for plain names.

    Raises:
        InputError: no such folder; no weights of this variant in it (the message lists the
            variants there are); an index that is no such thing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give the folder of one component")
    present = sorted(os.listdir(folder))
    infix = f".{variant}" if variant else ""
    looked_for = []
    for stem, ending in _KINDS:
        single, index = f"{stem}{infix}.{ending}", f"{stem}.{ending}.index{infix}.json"
        if single in present:
            return WeightFiles((folder / single,), None, {})
        if index in present:
            weight_map = _read_index(folder / index)
            files = tuple(folder / name for name in sorted(set(weight_map.values())))
            return WeightFiles(files, folder / index, weight_map)
        looked_for += [single, index]
    raise InputError(_none_found(folder, variant, present, looked_for))


def _none_found(
    folder: Path, variant: str | None, present: Sequence[str], looked_for: Sequence[str]
) -> str:
    matches = [re.fullmatch(pattern, name) for pattern in _VARIANTS for name in present]
    found = {m["variant"] for m in matches if m} - {variant}
    variants = sorted(v or "none, the plain files" for v in found)
    there = ", ".join(present[:20]) + (" ..." if len(present) > 20 else "") or "nothing"
    remedy = f"Ask for a variant that is present: {', '.join(variants)}"
    if not variants:
        remedy = f"Put one of these there: {', '.join(looked_for)}"
    return f"{folder}: no weights by the names looked for; it holds {there}. {remedy}"


def _read_index(path: Path) -> dict[str, str]:
    """Reads tensor name -> file name, and checks that each file lies in the index's own folder."""
    _check_file(path)
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no sound json ({error}). {_FETCH}") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{path}: no index of shards, it has no weight_map. {_FETCH}")
    suffix = f".{path.name.split('.')[1]}"
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(suffix):
            raise InputError(f"{path}: puts tensor {name!r} into {file!r}, no shard. {_FETCH}")
        if not os.path.lexists(path.parent / file):
            raise InputError(f"{path}: names {file}, which is missing. Fetch it into the folder")
    return weight_map


def _check_file(path: Path) -> None:
    """Refuses what a failed download leaves behind."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}). {_FETCH}") from error
    if not head:
        raise InputError(f"{path}: 0 bytes long. {_FETCH}")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: a git-lfs pointer, not weights. Run git lfs pull")
    if re.match(rb"\s*<(!doctype|html|\?xml|head)", head.removeprefix(b"\xef\xbb\xbf"), re.I):
        raise InputError(f"{path}: a web page, not weights. Log in, or mend the address; {_FETCH}")


def _header(path: Path) -> Mapping[str, _Place | torch_pickle.TorchTensor]:
    _check_file(path)
    return torch_pickle.read_index(path) if path.suffix == ".bin" else _safetensors_header(path)


def _safetensors_header(path: Path) -> dict[str, _Place]:
    """Reads where the tensors lie, in the order of the file."""
    try:
        with safe_open(path, framework="numpy"):  # checks offsets, sizes and the file's length
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length), object_pairs_hook=unique)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: no sound safetensors file ({error}). {_FETCH}") from error
    header.pop("__metadata__", None)
    places = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in _DTYPES:
            found = f"tensor {name!r} is of dtype {entry['dtype']}, which is not supported"
            raise InputError(f"{path}: {found}. Re-save it as F32, F16 or BF16")
        if len(entry["shape"]) > 32 or math.prod(n or 1 for n in entry["shape"]) > _MAX_EMPTY:
            raise InputError(f"{path}: tensor {name!r} is of shape {entry['shape']}. {_FETCH}")
        dtype, start = np.dtype(_DTYPES[entry["dtype"]]), 8 + length + entry["data_offsets"][0]
        places[name] = _Place(tuple(entry["shape"]), dtype, start)
    return places


def _read_safetensors(path: Path, places: Mapping[str, _Place]) -> Iterator[tuple[str, np.ndarray]]:
    # Plain reads: pages of a memory map would count as resident until the map is closed.
    with path.open("rb") as file:
        for name, place in places.items():
            array = np.empty(place.shape, place.dtype)
            file.seek(place.start)
            if file.readinto(memoryview(array.reshape(-1).view(np.uint8))) != array.nbytes:
                raise InputError(f"{path}: cut off within tensor {name!r}. {_FETCH}")
            yield name, array
            del array  # so that it is not kept while the next is read
