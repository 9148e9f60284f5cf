"""The fast tests write torch's format by hand: they need no torch, and can write what it would not.

Layout and opcodes are those of torch.save of torch 2.13.0; the parity tests hold them against it.
"""

import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.errors import InputError
from tda_jax.models import torch_pickle

VALUES = np.arange(24, dtype=np.float32).reshape(4, 6)


# Pickle opcodes, as bytes.
def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value):
    return b"J" + struct.pack("<i", value)


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def tup(*items):
    return b"(" + b"".join(items) + b"t"


def dictionary(**items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def program(body):
    return b"\x80\x02" + body + b"."


def storage(kind="FloatStorage", key="0", numel=24, module="torch"):
    parts = (text("storage"), name(module, kind), text(key), text("cpu"), integer(numel))
    return tup(*parts) + b"Q"


def tensor(shape=(4, 6), stride=(6, 1), offset=0, held=None, rest=b"", version="v2"):
    sizes = [tup(*map(integer, axes)) for axes in (shape, stride)]
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = tup(held or storage(), integer(offset), *sizes, b"\x89", hooks, rest)
    return name("torch._utils", f"_rebuild_tensor_{version}") + arguments + b"R"


def write(path, body, storages=None, order=b"little", compression=zipfile.ZIP_STORED, extra=()):
    """Writes a checkpoint whose data.pkl has the given opcodes."""
    storages = {"0": VALUES} if storages is None else storages
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program(body))
        archive.writestr("archive/version", b"3\n")
        if order is not None:
            archive.writestr("archive/byteorder", order)
        for key, value in storages.items():
            archive.writestr(f"archive/data/{key}", np.asarray(value).tobytes())
        for entry, content in extra:
            archive.writestr(entry, content)
    return path


def load(path):
    index = torch_pickle.read_index(path)
    return dict(torch_pickle.read(path, index))


def assert_refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


# What is read.


def test_reads_views_of_one_storage(tmp_path):
    body = dictionary(
        whole=tensor(),
        tied=tensor(),
        transposed=tensor((6, 4), (1, 6)),
        strided=tensor((2, 3), (6, 2), offset=6),
        gap_of_one=tensor((3,), (7,), offset=2),
        scalar=tensor((), (), offset=23),
        empty=tensor((0, 3), (3, 1)),
        parameter=name("torch._utils", "_rebuild_parameter") + tup(tensor(), b"\x88", b"}") + b"R",
    )
    path = write(tmp_path / "w.bin", body)
    expected = {
        "whole": VALUES,
        "tied": VALUES,
        "transposed": VALUES.T,
        "strided": VALUES[1:3, ::2],
        "gap_of_one": VALUES.ravel()[[2, 9, 16]],
        "scalar": VALUES[3, 5],
        "empty": np.zeros((0, 3), np.float32),
        "parameter": VALUES,
    }
    arrays = load(path)
    assert list(arrays) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(arrays[key], value, strict=True)
        assert arrays[key].flags.owndata
        assert arrays[key].flags.c_contiguous
    arrays["whole"][:] = 7  # tied tensors do not share memory
    np.testing.assert_array_equal(arrays["tied"], VALUES)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", np.float64),
        ("FloatStorage", np.float32),
        ("HalfStorage", np.float16),
        ("BFloat16Storage", ml_dtypes.bfloat16),
        ("LongStorage", np.int64),
        ("IntStorage", np.int32),
        ("ShortStorage", np.int16),
        ("CharStorage", np.int8),
        ("ByteStorage", np.uint8),
        ("BoolStorage", np.bool_),
    ],
)
def test_reads_dtype(tmp_path, kind, dtype):
    values = np.array([0, 1, 3, 100], dtype)
    body = dictionary(w=tensor((4,), (1,), held=storage(kind, numel=4)))
    path = write(tmp_path / "w.bin", body, {"0": values})
    np.testing.assert_array_equal(load(path)["w"], values, strict=True)
    assert torch_pickle.read_index(path)["w"].dtype == np.dtype(dtype)


def test_reads_untyped_storage(tmp_path):
    held = storage("UntypedStorage", numel=96, module="torch.storage")
    body = dictionary(w=tensor(held=held, rest=name("torch", "float32"), version="v3"))
    np.testing.assert_array_equal(load(write(tmp_path / "w.bin", body))["w"], VALUES, strict=True)


def test_refuses_tensor_whose_bytes_are_not_its_values(tmp_path):
    path = write(tmp_path / "w.bin", dictionary(w=tensor(rest=dictionary(neg=b"\x88"))))
    assert_refused(path, "bytes that are not its values")


def test_reads_storage_larger_than_one_chunk(tmp_path):
    values = np.arange(3 * 2**20, dtype=np.float32)  # 12 MB, read in chunks of 4 MB
    shape = (2**20 + 1, 2)
    body = dictionary(w=tensor(shape, (1, 5), offset=2**20 - 1, held=storage(numel=values.size)))
    path = write(tmp_path / "w.bin", body, {"0": values})
    first = np.arange(shape[0])[:, None] + 2**20 - 1
    np.testing.assert_array_equal(load(path)["w"], (first + np.array([0, 5])).astype(np.float32))


def test_index_reads_no_data(tmp_path):
    values = np.zeros(8 * 2**20, np.float32)
    body = dictionary(w=tensor((values.size,), (1,), held=storage(numel=values.size)))
    path = write(tmp_path / "w.bin", body, {"0": values})
    tracemalloc.start()
    torch_pickle.read_index(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 2**20


def test_reads_ordered_dict_with_metadata(tmp_path):
    ordered = name("collections", "OrderedDict") + b")R(" + text("w") + tensor() + b"u"
    body = ordered + dictionary(_metadata=dictionary(version=integer(1))) + b"b"
    np.testing.assert_array_equal(load(write(tmp_path / "w.bin", body))["w"], VALUES)


def test_reads_file_without_byteorder(tmp_path):
    path = write(tmp_path / "w.bin", dictionary(w=tensor()), order=None)
    np.testing.assert_array_equal(load(path)["w"], VALUES)


def test_passes_over_plain_values_beside_tensors(tmp_path):
    body = dictionary(global_step=integer(5), name=text("x"), none=b"N", w=tensor())
    assert list(load(write(tmp_path / "w.bin", body))) == ["w"]


def test_reads_nested_state_dict(tmp_path):
    body = dictionary(epoch=integer(5), state_dict=dictionary(w=tensor()), loops=b"]")
    assert list(load(write(tmp_path / "w.bin", body))) == ["w"]


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (dictionary(state_dict=dictionary(w=tensor(), step=integer(1))), "entry 'step' is a int"),
        (dictionary(state_dict=dictionary(w=tensor()), v=tensor()), "inside and beside"),
        (dictionary(w=tensor(), more=dictionary(v=tensor())), "entry 'more' is a dict"),
        (dictionary(w=tensor(), more=b"]"), "entry 'more' is a list"),
        (dictionary(step=integer(1)), "a dict without tensors"),
        (b"](" + tensor() + b"e", "a list without tensors"),
        (b"}" + integer(3) + tensor() + b"s", "entry 3 is a TorchTensor, not a named tensor"),
    ],
)
def test_refuses_what_is_no_state_dict(tmp_path, body, match):
    assert_refused(write(tmp_path / "w.bin", body), match)


# What would run something.


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch_command(path):
    return f"touch {path}"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("target", ["system", "eval", "nested"])
def test_refuses_calls(tmp_path, protocol, target):
    mark = tmp_path / "ran"
    evil = {
        "system": Evil(os.system, touch_command(mark)),
        "eval": Evil(eval, f"open({str(mark)!r}, 'w')"),
        "nested": [{"x": (1, Evil(os.system, touch_command(mark)))}],
    }[target]
    data = pickle.dumps({"w": evil}, protocol=protocol)
    path = write(tmp_path / "w.bin", data.removeprefix(b"\x80\x02").removesuffix(b"."))
    if protocol > 2:  # write() puts a header of protocol 2 in front
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
    match = r"would run (builtins|__builtin__)\.eval" if target == "eval" else r"run \w+\.system"
    assert_refused(path, match)
    assert not mark.exists()
    pickle.loads(data)  # the attack itself works
    assert mark.exists()


def test_refuses_global_hidden_behind_memo(tmp_path):
    mark = tmp_path / "ran"
    hidden = b"(" + name("posix", "system") + b"q\x07" + text("x") + b"t"  # memo 7: the function
    attack = b"h\x07" + tup(text(touch_command(mark))) + b"R"
    body = dictionary(w=tensor(), first=hidden, second=attack)
    assert_refused(write(tmp_path / "w.bin", body), r"would run posix\.system")
    assert not mark.exists()
    pickle.loads(program(hidden + attack + b"\x86"))
    assert mark.exists()


@pytest.mark.parametrize(
    ("module", "attribute"),
    [
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "_rebuild_tensor_v2.__class__"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("tda_jax.models.torch_pickle", "_tensor"),
        ("numpy", "load"),
    ],
)
@pytest.mark.parametrize("opcode", ["GLOBAL", "STACK_GLOBAL"])
def test_refuses_names_outside_the_table(tmp_path, module, attribute, opcode):
    found = name(module, attribute)
    if opcode == "STACK_GLOBAL":
        found = text(module) + text(attribute) + b"\x93"
    path = write(tmp_path / "w.bin", dictionary(w=tensor(), x=found))
    assert_refused(path, f"would run {module}.{attribute}".replace(".", r"\."))


FUNCTION = name("torch._utils", "_rebuild_tensor_v2")
STATE = dictionary(__code__=integer(1), storage=integer(1))


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (FUNCTION + STATE + b"b", "fills a function"),  # BUILD would set attributes of a function
        (FUNCTION + b"N" + STATE + b"\x86b", "fills a function"),
        (tensor() + STATE + b"b", "fills a TorchTensor"),
        (name("torch", "FloatStorage") + STATE + b"b", "fills a _Storage"),
        (name("torch", "FloatStorage") + b")R", "calls a _Storage"),
        (FUNCTION + b")\x81", "opcode NEWOBJ"),
        (FUNCTION + b"}}\x92", "opcode"),
        (b"(" + text("x") + b"ios\nsystem\n", "opcode INST"),
        (b"\x82\x01", "opcode EXT1"),
        (name("collections", "OrderedDict") + tup(tup()) + b"R", "TypeError"),
        (FUNCTION + b")R", "TypeError"),
        (b"}" + tup(integer(1)) + integer(1) + b"s", "dict key of type tuple"),
        (b"}" + integer(1) + b"s", "IndexError|fills"),
        (b"h\x05", "KeyError"),
        (b"0", "opcode POP"),
        (b"", "IndexError"),
        (text("system") + integer(1) + b"\x93", "global without a name"),
        (tup(text("x")) + b"Q", "TypeError"),
        (storage(kind="nn"), r"would run torch\.nn"),
        (name("torch", "float8_e4m3fn"), r"holds fp8 tensors of torch\.float8_e4m3fn"),
        (b"X\x02\x00\x00\x00\xff\xff", "UnicodeDecodeError"),
    ],
)
def test_refuses_misused_opcodes(tmp_path, body, match):
    assert_refused(write(tmp_path / "w.bin", body), match)


def test_ordered_dict_state_sets_no_attribute(tmp_path):
    ordered = name("collections", "OrderedDict") + b")R(" + text("w") + tensor() + b"u"
    body = ordered + dictionary(clear=integer(1), w=integer(2)) + b"b"
    assert list(load(write(tmp_path / "w.bin", body))) == ["w"]


# What would take memory or time without end.


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"shape": (4, 7), "stride": (7, 1)}, "overruns"),
        ({"shape": (4, 6), "stride": (7, 1)}, "overruns"),
        ({"offset": 1}, "overruns"),
        ({"shape": (2**31 - 1,) * 3, "stride": (0, 0, 0)}, "overruns"),
        ({"shape": (2**31 - 1,) * 20, "stride": (0,) * 20}, "overruns"),
        ({"shape": (2, 24), "stride": (0, 1)}, "overruns"),
        ({"shape": (-4, -6)}, "no natural number"),
        ({"stride": (-6, 1)}, "no natural number"),
        ({"offset": -1}, "no natural number"),
        ({"shape": (24,)}, "1 axes and 2 strides"),
        ({"shape": (1,) * 40, "stride": (1,) * 40}, "40 axes"),
        ({"held": storage(numel=2**31 - 1)}, "needs 8589934588 bytes in archive/data/0"),
        ({"held": storage(numel=-1)}, "needs -4 bytes"),
        ({"held": storage(key="1")}, "which has no entry"),
        ({"held": storage(key="../data.pkl", numel=1)}, "which has no entry"),
    ],
)
def test_refuses_tensor_outside_its_storage(tmp_path, change, match):
    path = write(tmp_path / "w.bin", dictionary(w=tensor(**change)))
    tracemalloc.start()
    with pytest.raises(InputError, match=match):
        torch_pickle.read_index(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def shared_tuples(depth):
    """A tuple of two references to a tuple of two references ..., 2**depth leaves in all."""
    return b"NN\x86q\x01" + b"h\x01\x86q\x01" * (depth - 1)


@pytest.mark.parametrize(
    "body",
    [
        b"Nr\xff\xff\xff\x7f",  # pickle.Unpickler makes room for 2**32 entries of the memo
        b"\x96" + struct.pack("<Q", 2**40),  # BYTEARRAY8 of a terabyte
        b"\x8d" + struct.pack("<Q", 2**40),
        b"}" + shared_tuples(60) + b"Ns",  # hashing takes 2**60 steps
        FUNCTION + tup(storage(), integer(0), shared_tuples(60), shared_tuples(60)) + b"R",
        shared_tuples(60) + text("x") + b"\x93",  # so does writing it into a message
    ],
)
def test_bombs_are_refused_at_once(tmp_path, body):
    path = write(tmp_path / "w.bin", body)
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(InputError):
        torch_pickle.read_index(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - start < 2
    assert peak < 2**20


def test_refuses_overlong_pickle(tmp_path):
    path = write(tmp_path / "w.bin", b"}" * (16 * 2**20))
    assert_refused(path, "over 16777216 bytes")


# Files that are not what they should be.


def test_refuses_big_endian(tmp_path):
    path = write(tmp_path / "w.bin", dictionary(w=tensor()), order=b"big")
    assert_refused(path, "byte order is b'big', not little.*Re-save")


def test_refuses_compressed(tmp_path):
    path = tmp_path / "w.bin"
    assert_refused(write(path, dictionary(w=tensor()), compression=zipfile.ZIP_DEFLATED), "compres")


@pytest.mark.parametrize(
    "extra", [("archive/constants.pkl", b""), ("other/data.pkl", b""), ("data.pkl", b"")]
)
def test_refuses_other_archives(tmp_path, extra):
    path = write(tmp_path / "w.bin", dictionary(w=tensor()), extra=[extra])
    if extra[0] == "data.pkl":  # at the root it is nobody's
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(*extra)
    assert_refused(path, "no state dict of torch.save")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_entry_that_is_there_twice(tmp_path):
    path = write(tmp_path / "w.bin", dictionary(w=tensor()), extra=[("archive/data/0", b"0" * 96)])
    assert_refused(path, "no state dict of torch.save")


def test_refuses_legacy_file(tmp_path):
    path = tmp_path / "w.bin"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2))
    assert_refused(path, "legacy file, of before torch 1.6. Re-save the weights as safetensors")


def test_refuses_missing_file(tmp_path):
    assert_refused(tmp_path / "w.bin", "FileNotFoundError")


def test_refuses_file_that_changed_after_the_index(tmp_path):
    path = write(tmp_path / "w.bin", dictionary(w=tensor()))
    index = torch_pickle.read_index(path)
    write(path, dictionary(w=tensor()), {"0": VALUES[:2]})
    with pytest.raises(InputError, match="has changed"):
        list(torch_pickle.read(path, index))
    write(path, dictionary(w=tensor()), {"1": VALUES})
    with pytest.raises(InputError, match="no item named"):
        list(torch_pickle.read(path, index))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    body = dictionary(a=tensor(), b=tensor((6, 4), (1, 6)), step=integer(3))
    return write(tmp_path_factory.mktemp("sound") / "w.bin", body).read_bytes()


def load_bytes(folder: Path, data):
    path = folder / "damaged.bin"
    path.write_bytes(data)
    return load(path)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_truncation_is_refused(sound, tmp_path_factory, data):
    length = data.draw(st.integers(0, len(sound) - 1))
    with pytest.raises(InputError):
        load_bytes(tmp_path_factory.getbasetemp(), sound[:length])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_refused_or_harmless(sound, tmp_path_factory, data):
    place = data.draw(st.integers(0, len(sound) - 1))
    damaged = bytearray(sound)
    damaged[place] ^= data.draw(st.integers(1, 255))
    try:
        arrays = load_bytes(tmp_path_factory.getbasetemp(), bytes(damaged))
    except InputError:
        return
    np.testing.assert_array_equal(arrays["a"], VALUES)
    np.testing.assert_array_equal(arrays["b"], VALUES.T)


def test_flipped_bit_of_data_is_refused(sound, tmp_path):
    damaged = bytearray(sound)
    damaged[sound.index(VALUES.tobytes()) + 40] ^= 1
    with pytest.raises(InputError, match="Bad CRC-32"):
        load_bytes(tmp_path, bytes(damaged))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_pickle_gives_input_error_or_tensors(tmp_path_factory, body):
    path = write(tmp_path_factory.getbasetemp() / "any.bin", dictionary(w=tensor()) + body)
    try:
        arrays = load(path)
    except InputError:
        return
    np.testing.assert_array_equal(arrays["w"], VALUES)


# Against torch itself.


@pytest.mark.parity
def test_parity_dtypes_and_views(tmp_path):
    import torch

    values = torch.randn(5, 7, 3)
    state = {str(dtype): values.to(dtype) for dtype in (torch.float64, torch.float16)}
    state |= {str(dtype): (values * 9).to(dtype) for dtype in (torch.int64, torch.int32)}
    state |= {str(dtype): (values * 9).to(dtype) for dtype in (torch.int16, torch.int8)}
    state |= {"bool": values > 0, "bf16": values.bfloat16(), "uint8": values.abs().byte()}
    state |= {"transposed": values.transpose(0, 2), "part": values[1:4, ::2], "tied": values}
    state |= {"scalar": torch.tensor(3), "empty": torch.zeros(0, 4)}
    state |= {"channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    state |= {"parameter": torch.nn.Parameter(values), "column": values[:, 3, 1]}
    path = tmp_path / "w.bin"
    torch.save(state, path)
    expected, arrays = torch.load(path, weights_only=True), load(path)
    assert list(arrays) == list(expected)
    for key, value in expected.items():
        value = value.detach()
        bf16 = value.dtype is torch.bfloat16
        value = value.float().numpy().astype(ml_dtypes.bfloat16) if bf16 else value.numpy()
        np.testing.assert_array_equal(arrays[key], value, strict=True)


@pytest.mark.parity
def test_parity_module_with_tied_weights(tmp_path):
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    model.append(torch.nn.Linear(4, 4))
    model[2].weight = model[0].weight
    path = tmp_path / "w.bin"
    for saved in (model.state_dict(), {"state_dict": model.state_dict(), "epoch": 3}):
        torch.save(saved, path)
        arrays = load(path)
        assert list(arrays) == list(model.state_dict())
        for key, value in model.state_dict().items():
            np.testing.assert_array_equal(arrays[key], value.numpy(), strict=True)


@pytest.mark.parity
def test_parity_hand_made_files_are_torch_files(tmp_path):
    import torch

    path = write(tmp_path / "w.bin", dictionary(w=tensor((6, 4), (1, 6))))
    np.testing.assert_array_equal(torch.load(path, weights_only=True)["w"].numpy(), VALUES.T)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda torch: torch.ones(4).to(torch.float8_e4m3fn), "fp8 tensors of torch.float8_e4m3fn"),
        (lambda torch: torch.ones(2, 2).to_sparse(), "would run .*_rebuild_sparse_tensor"),
        (lambda torch: torch.ones(1).expand(9), "overruns its 4 bytes"),
        (lambda torch: torch._neg_view(torch.ones(2)), "bytes that are not its values"),
    ],
)
def test_parity_refuses(tmp_path, make, match):
    import torch

    torch.save({"w": make(torch)}, tmp_path / "w.bin")
    assert_refused(tmp_path / "w.bin", match)


@pytest.mark.parity
def test_parity_refuses_legacy_format(tmp_path):
    import torch

    path = tmp_path / "w.bin"
    torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert_refused(path, "legacy")
