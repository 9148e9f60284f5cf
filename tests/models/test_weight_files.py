import json
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tda_jax.errors import InputError
from tda_jax.models.weight_files import TensorInfo, find_weights

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.arange(4, dtype=np.int64)
PLAIN = "diffusion_pytorch_model.safetensors"
SHARDS = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
INDEX = f"{PLAIN}.index.json"


def write_bin(path, value):
    """Writes the float32 vector `value` as tensor "a", as torch.save does."""
    size = struct.pack("<i", len(value))
    data = (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n("
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ"
        + (size + b"tQK\x00J" + size + b"\x85K\x01\x85\x89}tRs.")
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", np.asarray(value, np.float32).tobytes())


def write_raw(path, header, body):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + body)


def write_index(folder, weight_map, name=INDEX):
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.fixture
def sharded(tmp_path):
    save_file({"b": B}, tmp_path / SHARDS[0])
    save_file({"a": A}, tmp_path / SHARDS[1])
    write_index(tmp_path, {"a": SHARDS[1], "b": SHARDS[0]})
    return tmp_path


def read_all(folder, variant=None):
    weights = find_weights(folder, variant)
    return dict(weights.read(weights.info()))


def assert_refused(folder, file, match):
    with pytest.raises(InputError, match=match) as caught:
        find_weights(folder).info()
    assert str(caught.value).startswith(str(folder / file))


# Which files are found.


def test_order_of_preference(tmp_path):
    safetensors = [PLAIN, "model.safetensors"]
    torch_files = ["diffusion_pytorch_model.bin", "pytorch_model.bin"]
    for i, name in enumerate(safetensors + torch_files):
        value = np.full(3, i, np.float32)
        if name in torch_files:
            write_bin(tmp_path / name, value)
        else:
            save_file({"a": value}, tmp_path / name)
    save_file({"a": A}, tmp_path / "pytorch_lora_weights.safetensors")
    for i, name in enumerate(safetensors + torch_files):
        assert find_weights(tmp_path).files == (tmp_path / name,)
        np.testing.assert_array_equal(read_all(tmp_path)["a"], np.full(3, i, np.float32))
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"holds pytorch_lora_weights\.safetensors"):
        find_weights(tmp_path)


@pytest.mark.parametrize("stem", ["diffusion_pytorch_model", "model"])
@pytest.mark.parametrize("variant", [None, "fp16", "non_ema"])
def test_sharded_names(tmp_path, stem, variant):
    infix = f".{variant}" if variant else ""
    shards = [f"{stem}{infix}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    save_file({"a": A}, tmp_path / shards[0])
    save_file({"b": B}, tmp_path / shards[1])
    write_index(tmp_path, {"a": shards[0], "b": shards[1]}, f"{stem}.safetensors.index{infix}.json")
    assert list(read_all(tmp_path, variant)) == ["a", "b"]
    with pytest.raises(
        InputError, match=f"a variant that is present: {variant or 'none, the plain files'}$"
    ):
        find_weights(tmp_path, "other")


def test_sharded_bin(tmp_path):
    names = [f"pytorch_model-0000{i}-of-00001.bin" for i in (1,)]
    write_bin(tmp_path / names[0], A[0])
    write_index(tmp_path, {"a": names[0]}, "pytorch_model.bin.index.json")
    np.testing.assert_array_equal(read_all(tmp_path)["a"], A[0], strict=True)


def test_single_file_before_index(sharded):
    save_file({"c": A}, sharded / PLAIN)
    assert list(read_all(sharded)) == ["c"]


def test_variant(tmp_path):
    save_file({"a": A}, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    save_file({"a": A + 1}, tmp_path / "diffusion_pytorch_model.non_ema.safetensors")
    with pytest.raises(InputError, match=r"a variant that is present: fp16, non_ema$"):
        find_weights(tmp_path)
    np.testing.assert_array_equal(read_all(tmp_path, "non_ema")["a"], A + 1)


def test_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    match = rf"{re.escape(str(tmp_path))}: .* holds config.json. Put one of these there: .*{PLAIN}"
    with pytest.raises(InputError, match=match):
        find_weights(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_weights(tmp_path / "none")
    with pytest.raises(InputError, match="no such folder"):
        find_weights(tmp_path / "config.json")


def test_shards_without_index_are_listed(sharded):
    (sharded / INDEX).unlink()
    with pytest.raises(InputError, match=f"it holds {SHARDS[0]}, {SHARDS[1]}. Put .*{INDEX}"):
        find_weights(sharded)


# What is read.


def test_info(sharded):
    assert find_weights(sharded).info() == {
        "b": TensorInfo((4,), np.dtype(np.int64), sharded / SHARDS[0]),
        "a": TensorInfo((2, 3), np.dtype(np.float32), sharded / SHARDS[1]),
    }


@pytest.mark.parametrize(
    "dtype",
    [*"dfeqlihbQLIHB?", ml_dtypes.bfloat16],
)
def test_dtypes(tmp_path, dtype):
    tensors = {"a": A.astype(dtype), "scalar": np.array(3, dtype), "empty": np.zeros((0, 2), dtype)}
    save_file(tensors, tmp_path / PLAIN)
    arrays = read_all(tmp_path)
    assert arrays.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(arrays[name], value, strict=True)
        assert arrays[name].flags.owndata
        assert arrays[name].flags.writeable


def test_read_keeps_file_order_and_wanted_names(tmp_path):
    body = A.tobytes() + B.tobytes()
    late = {"dtype": "I64", "shape": [4], "data_offsets": [24, 56]}
    early = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    write_raw(tmp_path / PLAIN, {"a_late": late, "z_early": early}, body)
    weights = find_weights(tmp_path)
    assert [name for name, _ in weights.read(["a_late", "z_early"])] == ["z_early", "a_late"]
    (read,) = weights.read(["a_late", "a_late"])
    np.testing.assert_array_equal(read[1], B, strict=True)


def test_read_refuses_unknown_name_at_once(sharded):
    with pytest.raises(InputError, match=f"{INDEX}: no tensor 'c'"):
        find_weights(sharded).read(["a", "c"])


def test_read_refuses_file_cut_off_after_its_header_was_read(tmp_path):
    save_file({"a": A, "b": np.zeros(2**20, "f")}, tmp_path / PLAIN)  # larger than a read buffer
    stream = find_weights(tmp_path).read(["a", "b"])
    next(stream)
    with (tmp_path / PLAIN).open("r+b") as file:
        file.truncate(file.seek(0, 2) - 1)
    with pytest.raises(InputError, match=r"safetensors: cut off within tensor 'b'"):
        list(stream)


MEASURE = """
import re, sys
from pathlib import Path
from tda_jax.models.weight_files import find_weights

def peak():  # not getrusage: its ru_maxrss starts at that of the parent process
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

weights = find_weights(Path(sys.argv[1]))
names = list(weights.info())
before = peak()
total = sum(array.nbytes for _, array in weights.read(names))
print(total, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_streaming_takes_the_memory_of_one_tensor(tmp_path):
    size, count = 64 * 2**20, 16  # 1 GiB, sparse: it takes no room on the disk
    offsets = [[i * size, (i + 1) * size] for i in range(count)]
    header = {
        f"w{i:02}": {"dtype": "F32", "shape": [size // 4], "data_offsets": pair}
        for i, pair in enumerate(offsets)
    }
    write_raw(tmp_path / PLAIN, header, b"")
    with (tmp_path / PLAIN).open("r+b") as file:
        file.truncate(file.seek(0, 2) + count * size)
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    total, extra = map(int, result.stdout.split())
    assert total == count * size
    assert extra < 0.35e9
    assert extra > size / 2  # else the measure does not work


# Bad files, each by one clear error that names the file.


@pytest.mark.parametrize("name", [PLAIN, "pytorch_model.bin", INDEX])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "0 bytes long"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>Access denied</html>", "a web page"),
        (b"\xef\xbb\xbf \n<html lang=en>", "a web page"),
        (b"no weights at all", "no sound"),
    ],
)
def test_refuses_what_a_failed_download_leaves(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    assert_refused(tmp_path, name, match)


def test_refuses_dangling_link(tmp_path):
    (tmp_path / PLAIN).symlink_to(tmp_path / "blobs" / "gone")
    assert_refused(tmp_path, PLAIN, "cannot be opened")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_truncated_safetensors_is_refused(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    save_file({"a": A, "b": B}, folder / PLAIN)
    whole = (folder / PLAIN).read_bytes()
    (folder / PLAIN).write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert_refused(folder, PLAIN, "0 bytes long|no sound safetensors file")


ENTRY = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"{" + ENTRY + b"," + ENTRY + b"}", "'a' is there twice"),
        (b"{" + ENTRY.replace(b"F32", b"F64") + b"}", "no sound safetensors"),
        (b"{" + ENTRY.replace(b"[0,4]", b"[0,8]") + b"}", "no sound safetensors"),
        (b"{" + ENTRY.replace(b"F32", b"F8_E4M3").replace(b"[1]", b"[4]") + b"}", "F8_E4M3"),
        (b"{" + ENTRY.replace(b"F32", b"F8_E5M2").replace(b"[1]", b"[4]") + b"}", "F8_E5M2"),
        (b"{" + ENTRY.replace(b"[1]", b"[" + b"1," * 40 + b"1]") + b"}", "of shape"),
    ],
)
def test_refuses_bad_safetensors_header(tmp_path, header, match):
    write_raw(tmp_path / PLAIN, header, b"1234")
    assert_refused(tmp_path, PLAIN, match)


def test_refuses_empty_tensor_too_large_for_numpy(tmp_path):
    entry = {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}
    write_raw(tmp_path / PLAIN, {"a": entry}, b"")
    assert_refused(tmp_path, PLAIN, "of shape")


def test_refuses_pickle_that_would_run_something(tmp_path):
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00x\x85R.")
    assert_refused(tmp_path, "pytorch_model.bin", r"would run os\.system")


def test_refuses_missing_shard(sharded):
    (sharded / SHARDS[0]).unlink()
    assert_refused(sharded, INDEX, f"names {SHARDS[0]}, which is missing")


def test_refuses_truncated_shard(sharded):
    data = (sharded / SHARDS[1]).read_bytes()
    (sharded / SHARDS[1]).write_bytes(data[:-1])
    assert_refused(sharded, SHARDS[1], "no sound safetensors file")


def test_refuses_key_that_its_shard_lacks(sharded):
    write_index(sharded, {"a": SHARDS[1], "b": SHARDS[0], "c": SHARDS[0]})
    assert_refused(sharded, INDEX, f"names tensor 'c', which {SHARDS[0]} lacks")
    write_index(sharded, {"a": SHARDS[0], "b": SHARDS[1]})
    assert_refused(sharded, INDEX, f"names tensor 'a', which {SHARDS[0]} lacks")


def test_refuses_key_that_the_index_lacks(sharded):
    save_file({"a": A, "c": A}, sharded / SHARDS[1])
    assert_refused(sharded, INDEX, f"lacks tensor 'c', which {SHARDS[1]} holds")


def test_refuses_key_in_two_shards(sharded):
    save_file({"b": B, "a": A}, sharded / SHARDS[0])
    assert_refused(sharded, SHARDS[1], f"tensor 'a' is also in {SHARDS[0]}")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "'a' is there twice"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "into '../x.safetensors', no shard"),
        ('{"weight_map": {"a": "/etc/x.safetensors"}}', "no shard"),
        ('{"weight_map": {"a": "x.bin"}}', "into 'x.bin', no shard"),
        ('{"weight_map": {"a": 3}}', "into 3, no shard"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('["weight_map"]', "has no weight_map"),
        ('{"weight_map": ', "no sound json"),
        ("[" * 100_000, "no sound json"),
    ],
)
def test_refuses_bad_index(tmp_path, content, match):
    (tmp_path / INDEX).write_text(content)
    assert_refused(tmp_path, INDEX, match)


@pytest.mark.parity
@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("shard_size", ["10GB", "20KB"])
def test_parity_finds_what_diffusers_writes(tmp_path, safe, variant, shard_size):
    from diffusers import AutoencoderKL

    model = AutoencoderKL(block_out_channels=(32,), latent_channels=2)
    model.save_pretrained(
        tmp_path, safe_serialization=safe, variant=variant, max_shard_size=shard_size
    )
    weights = find_weights(tmp_path, variant)
    assert (len(weights.files) > 1) == (shard_size == "20KB")
    arrays = read_all(tmp_path, variant)
    assert arrays.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(arrays[name], value.numpy(), strict=True)


@pytest.mark.parity
def test_parity_bfloat16(tmp_path):
    import torch
    from safetensors.torch import save_file as save_torch

    value = torch.randn(5, 3).bfloat16()
    save_torch({"a": value}, tmp_path / PLAIN)
    expected = value.float().numpy().astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(read_all(tmp_path)["a"], expected, strict=True)


@pytest.mark.parity
@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("shard_size", ["10GB", "20KB"])
def test_parity_finds_what_transformers_writes(tmp_path, variant, shard_size):
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=90, d_model=16, d_kv=4, d_ff=32, num_layers=4, num_heads=4)
    model = T5EncoderModel(config)
    model.save_pretrained(tmp_path, variant=variant, max_shard_size=shard_size)
    arrays = read_all(tmp_path, variant)
    state = model.state_dict()
    assert arrays.keys() <= state.keys()
    assert state.keys() - arrays.keys() <= {"encoder.embed_tokens.weight"}  # tied to shared
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, state[name].numpy(), strict=True)
