"""Reads torch `.bin` and `.pt` checkpoints without torch and without running what they hold.

Format (torch 1.6 and later): a zip file with `<root>/data.pkl` (the pickled state dict),
`<root>/data/<key>` (the bytes of each storage) and `<root>/byteorder`.

`pickle.Unpickler` is not used, not even with a strict `find_class`: its BUILD sets attributes of
whatever is allowed, 9 bytes make its memo take 32 GB, and a tuple of tuples as a dict key keeps it
hashing for ever. Instead `pickletools.genops` splits the pickle into opcodes, and `_OPCODES`
follows the few that torch writes: it imports nothing, sets no attribute, and calls only `_ALLOWED`.
"""

import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tda_jax.errors import InputError

_REMEDY = "Re-save the weights as safetensors with a torch you trust"
_MAX_PICKLE_BYTES = 16 * 2**20  # 1500 tensors take 0.25 MB; bounds what the opcodes can build


class TorchTensor(NamedTuple):
    """Where a tensor lies in its checkpoint; `offset` and `stride` count elements, not bytes."""

    dtype: np.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: str  # name within the zip file; tied tensors share it
    storage_bytes: int

    @property
    def span(self) -> int:
        """The elements from the first to the last, gaps included."""
        steps = [(n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)]
        return 0 if 0 in self.shape else sum(steps) + 1


class _Storage(NamedTuple):
    dtype: np.dtype | None  # None: bytes without a type, the tensor brings its own
    key: str = ""  # empty for the mere type of a storage
    nbytes: int = 0


def _storage(tag: Any, kind: Any, key: Any, device: Any, numel: Any) -> _Storage:
    if type(kind) is not _Storage or type(key) is not str or type(numel) is not int:
        raise ValueError("it refers to what is no torch storage")
    return _Storage(kind.dtype, key, numel * (kind.dtype.itemsize if kind.dtype else 1))


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> TorchTensor:
    """Stands for _rebuild_tensor_v2 and _v3: the latter brings a dtype for an untyped storage."""
    if type(storage) is not _Storage or type(shape) is not tuple or type(stride) is not tuple:
        raise ValueError("a tensor has no storage, shape or stride")
    dtype, *flags = rest[2:] if storage.dtype is None else (storage.dtype, *rest[2:])
    if not isinstance(dtype, np.dtype) or any(flags):  # a flag: conjugate or negative bits
        raise ValueError("a tensor has no dtype, or bytes that are not its values")
    if len(shape) != len(stride) or len(shape) > 32:
        raise ValueError(f"a tensor has {len(shape)} axes and {len(stride)} strides")
    if not all(type(n) is int and n >= 0 for n in (offset, *shape, *stride)):
        raise ValueError("a tensor's offset, shape or stride is no natural number")
    return TorchTensor(dtype, shape, stride, offset, storage.key, storage.nbytes)


_DTYPES = {
    **{"float64 Double": "<f8", "float32 Float": "<f4", "float16 Half": "<f2"},
    **{"int64 Long": "<i8", "int32 Int": "<i4", "int16 Short": "<i2", "int8 Char": "i1"},
    **{"uint8 Byte": "u1", "bool Bool": "?", "bfloat16 BFloat16": ml_dtypes.bfloat16},
}
_ALLOWED = {
    "collections.OrderedDict": lambda: {},
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, grad, hooks: tensor,
    "torch.storage.UntypedStorage": _Storage(None),
    **{f"torch.{s.split()[1]}Storage": _Storage(np.dtype(t)) for s, t in _DTYPES.items()},
    **{f"torch.{s.split()[0]}": np.dtype(t) for s, t in _DTYPES.items()},
}


def _named(module: Any, name: Any) -> Any:
    """Gives the stand-in of a global. Nothing is imported, whatever the name."""
    full = f"{module}.{name}" if type(module) is type(name) is str else "a global without a name"
    if full not in _ALLOWED:
        fp8 = full.startswith("torch.float8")
        raise ValueError(f"it {'holds fp8 tensors of' if fp8 else 'would run'} {full}")
    return _ALLOWED[full]


class _Machine:
    """The stack and the memo that opcodes work on; both hold plain values and stand-ins."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.push = self.stack.append

    def pop(self, count: int) -> tuple[Any, ...]:
        return tuple([self.stack.pop() for _ in range(count)][::-1])

    def pop_to_mark(self) -> tuple[Any, ...]:
        values: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return tuple(values[::-1])

    def put(self, place: int | None) -> None:
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def fill(self, kind: type, values: tuple[Any, ...]) -> None:
        target = self.stack[-1]
        if type(target) is not kind:
            raise ValueError(f"it fills a {type(target).__name__} as if a {kind.__name__}")
        if kind is list:
            target.extend(values)
            return
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, int):  # hashing a tuple of tuples can take for ever
                raise ValueError(f"it has a dict key of type {type(key).__name__}")
            target[key] = value

    def call(self, function: Any, arguments: Any) -> None:
        if not callable(function) or type(arguments) is not tuple:
            raise ValueError(f"it calls a {type(function).__name__}")
        self.push(function(*arguments))


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_OPCODES: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, arg: None),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINFLOAT"), lambda m, arg: m.push(arg)),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), lambda m, arg: m.push(arg)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda m, arg: m.put(arg)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda m, arg: m.push(m.memo[arg])),
    "MARK": lambda m, arg: m.push(_MARK),
    **{op: lambda m, arg, v=v: m.push(v) for op, v in _CONSTANTS.items()},
    "EMPTY_LIST": lambda m, arg: m.push([]),
    "EMPTY_DICT": lambda m, arg: m.push({}),
    "EMPTY_TUPLE": lambda m, arg: m.push(()),
    **{f"TUPLE{n}": lambda m, arg, n=n: m.push(m.pop(n)) for n in (1, 2, 3)},
    "TUPLE": lambda m, arg: m.push(m.pop_to_mark()),
    "APPEND": lambda m, arg: m.fill(list, m.pop(1)),
    "APPENDS": lambda m, arg: m.fill(list, m.pop_to_mark()),
    "SETITEM": lambda m, arg: m.fill(dict, m.pop(2)),
    "SETITEMS": lambda m, arg: m.fill(dict, m.pop_to_mark()),
    "GLOBAL": lambda m, arg: m.push(_named(*arg.split(" ", 1))),
    "STACK_GLOBAL": lambda m, arg: m.push(_named(*m.pop(2))),
    "BINPERSID": lambda m, arg: m.push(_storage(*m.pop(1)[0])),
    "REDUCE": lambda m, arg: m.call(*m.pop(2)),
    # The state is dropped: for a state dict, _metadata, version numbers that no reader here needs.
    "BUILD": lambda m, arg: (m.pop(1), m.fill(dict, ())),
}


def _unpickle(data: bytes) -> Any:
    """Returns the value described; raises ValueError, IndexError, KeyError or TypeError."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise ValueError(f"it has opcode {opcode.name}, which torch does not write")
        _OPCODES[opcode.name](machine, argument)
    return machine.pop(1)[0]


def read_index(path: Path) -> dict[str, TorchTensor]:
    """Reads which tensors a checkpoint holds; their data stays on disk.

    A checkpoint (of torch.save, 1.6 or later) is a dict of tensors by name; numbers, strings and
    None beside them are passed over. `{"state_dict": {...}}` is read too: then all in `state_dict`
    must be tensors, and what lies beside it is passed over, unless it is a tensor.

    Returns:
        The tensors by name, in the file's order, each known to lie within its storage.

    Raises:
        InputError: missing, legacy (before 1.6), TorchScript, big-endian, compressed, truncated
            or corrupt file; a pickle that would run something; fp8; an entry that is no tensor;
            a tensor that reaches outside its storage, or is larger (torch.Tensor.expand).
    """
    with _checkpoint(path) as archive:
        root, sizes = _members(path, archive)
        try:
            content = _unpickle(archive.read(f"{root}/data.pkl"))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            found = f"its pickle is refused: {str(error)[:300]} ({type(error).__name__})"
            raise InputError(f"{path}: {found}. {_REMEDY}") from error
    located = {}
    for name, tensor in _select(path, content).items():
        located[name] = tensor._replace(storage=f"{root}/data/{tensor.storage}")
        if fault := _fault(located[name], sizes):
            raise InputError(f"{path}: tensor {name!r} {fault}. {_REMEDY}")
    return located


def read(path: Path, tensors: Mapping[str, TorchTensor]) -> Iterator[tuple[str, np.ndarray]]:
    """Reads tensors of `read_index(path)`, one at a time, in the order given.

    Yields:
        Name and array; each array owns its memory, also where tensors share a storage.

    Raises:
        InputError: the data is corrupt (its checksum is wrong) or no longer what the index said.
    """
    with _checkpoint(path) as archive:
        for name, tensor in tensors.items():
            yield name, _read_tensor(archive, tensor)  # no name keeps it while the next is read


@contextmanager
def _checkpoint(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens the zip file; whatever zipfile raises on a damaged one becomes an InputError."""
    try:
        with path.open("rb") as file:
            if file.read(2) == b"\x80\x02":
                raise InputError(f"{path}: a legacy file, of before torch 1.6. {_REMEDY}")
            with zipfile.ZipFile(file) as archive:
                yield archive
    except InputError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, LookupError) as error:
        raise InputError(f"{path}: no sound zip file ({error!r}). Fetch the file again") from error


def _members(path: Path, archive: zipfile.ZipFile) -> tuple[str, dict[str, int]]:
    """Returns the archive's root and the bytes of each entry, known to lie within the file."""
    members, room = archive.infolist(), path.stat().st_size
    sizes = {member.filename: member.file_size for member in members}
    root, *others = [name[:-9] for name in sizes if name.endswith("/data.pkl")] or [""]
    order = f"{root}/byteorder"  # files of before torch 2.1 lack it and are little-endian
    found = ""
    if not root or others or len(sizes) != len(members) or f"{root}/constants.pkl" in sizes:
        found = "a zip file, but no state dict of torch.save"
    elif any(m.compress_type or m.flag_bits & 1 or m.file_size > room for m in members):
        found = "its entries are compressed, encrypted or longer than the file"
    elif sizes[f"{root}/data.pkl"] > _MAX_PICKLE_BYTES:
        found = f"its pickle takes over {_MAX_PICKLE_BYTES} bytes"
    elif order in sizes and (value := archive.read(order)) != b"little":
        found = f"its byte order is {value[:9]!r}, not little"
    if found:
        raise InputError(f"{path}: {found}. {_REMEDY}")
    return root, sizes


def _select(path: Path, content: Any) -> dict[str, TorchTensor]:
    """Returns the tensors of a state dict, or of the one inside it."""
    outer = content if type(content) is dict else {}
    inner = outer.get("state_dict")
    nested = type(inner) is dict
    if nested and any(type(value) is TorchTensor for value in outer.values()):
        raise InputError(f"{path}: tensors both inside and beside state_dict. {_REMEDY}")
    chosen = {}
    for name, value in (inner if nested else outer).items():
        if type(value) is TorchTensor and type(name) is str:
            chosen[name] = value
        elif nested or type(value) not in (int, float, bool, str, type(None)):
            found = f"entry {name!r} is a {type(value).__name__}"
            raise InputError(f"{path}: {found}, not a named tensor. {_REMEDY}")
    if not chosen:
        raise InputError(f"{path}: a {type(content).__name__} without tensors. {_REMEDY}")
    return chosen


def _fault(tensor: TorchTensor, sizes: Mapping[str, int]) -> str:
    """Says why a tensor does not lie within its storage; empty if it does."""
    dtype, shape, stride, offset, storage, nbytes = tensor
    if sizes.get(storage) != nbytes:
        return f"needs {nbytes} bytes in {storage}, which has {sizes.get(storage, 'no entry')}"
    if max(math.prod(shape), offset + tensor.span) * dtype.itemsize > nbytes:
        return f"of shape {shape}, stride {stride}, offset {offset} overruns its {nbytes} bytes"
    return ""


def _read_tensor(archive: zipfile.ZipFile, tensor: TorchTensor) -> np.ndarray:
    """Copies a tensor from its storage. Extra memory: what it spans if strided, else 4 MB."""
    array = np.empty(tensor.shape, tensor.dtype)
    strides = tuple(step * array.itemsize for step in tensor.stride)
    whole = array.strides == strides
    window = array.reshape(-1) if whole else np.empty(tensor.span, tensor.dtype)
    raw = memoryview(window.view(np.uint8))
    place = -tensor.offset * array.itemsize  # of the next chunk, from the window's first byte
    with archive.open(tensor.storage) as member:
        while chunk := member.read(4 * 2**20):  # to the end, or the checksum is not compared
            part = chunk[max(-place, 0) : max(len(raw) - place, 0)]
            raw[max(place, 0) : max(place, 0) + len(part)] = part
            place += len(chunk)
    if place != tensor.storage_bytes - tensor.offset * array.itemsize:
        raise ValueError(f"{tensor.storage} has changed")
    if not whole:
        array[...] = np.lib.stride_tricks.as_strided(window, tensor.shape, strides)
    return array
