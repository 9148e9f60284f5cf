import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tda_jax import store
from tda_jax.errors import InputError
from tda_jax.store import Field

IDS = [f"album/{i:02d}" for i in range(10)]
FIELDS = [Field("loss", (3,), "float32"), Field("count", (), "int64")]
MADE_OF = {"corpus": "c0", "checkpoint": "k0", "config": {"lr": 0.1, "group": "all"}}
CHUNK = 4  # of 10 tracks: the last chunk has 2
DTYPES = ["bool", "float16", "bfloat16", "float32", "float64"]
DTYPES += [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
ROOT = str(Path(__file__).parent.parent)


def values(chunk, fill=0.0):
    """What the tests put into a chunk; no two rows are alike."""
    here = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, len(IDS)))
    loss = (here[:, None] * 10 + np.arange(3) + fill).astype(np.float32)
    return {"loss": loss, "count": here * 7}


def opened(path, **changed):
    given = {"ids": IDS, "fields": FIELDS, "made_of": MADE_OF, "chunk": CHUNK} | changed
    return store.open_store(path, **given)


def filled(path):
    made = opened(path)
    for chunk in store.missing(made):
        store.write_chunk(made, chunk, values(chunk))
    return made


def contents(path):
    """Every file below a folder but lock files, byte by byte."""
    files = (p for p in Path(path).rglob("*") if p.is_file() and not p.name.endswith("__lock"))
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


WHOLE = {
    name: np.concatenate([values(chunk)[name] for chunk in range(3)]) for name in ("loss", "count")
}


def test_what_was_written_is_read(tmp_path):
    filled(tmp_path / "s")
    for made in (opened(tmp_path / "s"), store.load_store(tmp_path / "s")):
        assert store.missing(made) == []
        found = store.read(made)
        assert found.keys() == WHOLE.keys()
        for name, x in found.items():
            assert x.dtype == WHOLE[name].dtype
            np.testing.assert_array_equal(x, WHOLE[name])
        assert made.ids == tuple(IDS)
        assert made.manifest["made_of"] == MADE_OF
        assert list(store.read(made, ["count"])) == ["count"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("store") / "s")


@given(st.integers(0, 10), st.integers(0, 10))
def test_any_range_of_rows(whole, start, stop):
    if start > stop:
        with pytest.raises(InputError, match=f"no rows {start}:{stop}; it has 0:10"):
            store.read(whole, start=start, stop=stop)
        return
    found = store.read(whole, start=start, stop=stop)
    for name, x in found.items():
        np.testing.assert_array_equal(x, WHOLE[name][start:stop])


def test_rows_or_fields_that_are_not_there(whole):
    for start, stop in ((-1, 3), (0, 11)):
        with pytest.raises(InputError, match="it has 0:10"):
            store.read(whole, start=start, stop=stop)
    with pytest.raises(InputError, match=r"no field 'gain'; it has \['count', 'loss'\]"):
        store.read(whole, ["gain"])
    for chunk in (-1, 3):
        with pytest.raises(InputError, match=rf"no chunk {chunk}; it has 0 .. 2"):
            store.rows(whole, chunk)


@pytest.mark.parametrize(
    "dtype",
    DTYPES,
)
def test_every_dtype_survives(tmp_path, dtype):
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    bits = np.random.default_rng(0).integers(0, 256, (3, 2, kind.itemsize), np.uint8)
    bits = bits % 2 if dtype == "bool" else bits
    x = bits.view(kind)[..., 0]  # any bits: denormal numbers, infinities, nan of all kinds
    made = opened(tmp_path, ids=["a", "b", "c"], fields=[Field("x", (2,), dtype)], chunk=2)
    store.write_chunk(made, 0, {"x": x[:2]})
    store.write_chunk(made, 1, {"x": x[2:]})
    found = store.read(store.load_store(tmp_path))["x"]
    assert found.dtype == kind
    assert found.tobytes() == x.tobytes()


@pytest.mark.parametrize("value", [0.0, -0.0, np.nan, np.inf])
def test_chunks_of_one_value_survive(tmp_path, value):
    """Zarr leaves out chunks that equal the fill value; a sign or a nan must not go with them."""
    made = opened(tmp_path)
    for chunk in range(3):
        given = values(chunk)
        given["loss"] = np.full_like(given["loss"], value)
        store.write_chunk(made, chunk, given)
    found = store.read(made, ["loss"])["loss"]
    assert found.tobytes() == np.full((10, 3), value, np.float32).tobytes()
    # Even what equals the fill value is a file, so that a backup or a copy of one is whole.
    assert len(list((tmp_path / "fields" / "loss" / "c").glob("*/*"))) == 3


def test_jax_arrays_are_taken(tmp_path):
    made = opened(tmp_path, fields=[Field("loss", (3,), "bfloat16")])
    x = jnp.arange(12, dtype=jnp.bfloat16).reshape(4, 3)
    store.write_chunk(made, 0, {"loss": x})
    np.testing.assert_array_equal(store.read(made, stop=4)["loss"], np.asarray(x))


def test_only_what_is_missing_is_left_to_do(tmp_path):
    made = opened(tmp_path)
    assert store.missing(made) == [0, 1, 2]
    store.write_chunk(made, 1, values(1))
    again = opened(tmp_path)
    assert store.missing(again) == [0, 2]
    assert store.rows(again, 1) == range(4, 8)
    assert store.rows(again, 2) == range(8, 10)
    np.testing.assert_array_equal(store.read(again, start=5, stop=8)["loss"], WHOLE["loss"][5:8])
    with pytest.raises(InputError, match=r"chunks \[0, 2\] are not done yet"):
        store.read(again)
    with pytest.raises(InputError, match=r"chunks \[2\] are not done yet"):
        store.read(again, start=7, stop=9)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"corpus": "c1"}, r'made_of.corpus is "c0" there and "c1" here'),
        ({"checkpoint": "k1"}, r'made_of.checkpoint is "k0" there and "k1" here'),
        ({"config": {"lr": 0.2, "group": "all"}}, r"made_of.config.lr is 0.1 there and 0.2 here"),
        ({"config": {"lr": 0.1}}, r'made_of.config.group is "all" there and absent here'),
        ({"code": "f"}, r'made_of.code is absent there and "f" here'),
    ],
)
def test_a_store_made_from_something_else_is_refused(tmp_path, changed, says):
    filled(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=says) as error:
        opened(tmp_path, made_of=MADE_OF | changed)
    assert str(error.value).count(" there and ") == 1  # what is equal is not listed
    assert "Give another folder, or delete this one" in str(error.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"chunk": 5}, "chunk is 4 there and 5 here"),
        ({"fields": FIELDS[:1]}, r"fields.count.dtype is \"int64\" there and absent here"),
        ({"fields": [Field("loss", (4,), "float32"), FIELDS[1]]}, r"is \[3\] there and \[4\] here"),
        ({"ids": [*IDS[:9], "new"]}, r"Only there: \['album/09'\], only here: \['new'\]"),
        ({"ids": IDS[:9]}, r"tracks is 10 there and 9 here.*Only there: \['album/09'\]"),
        ({"ids": IDS[::-1]}, 'ids is "[0-9a-f]{64}" there and "[0-9a-f]{64}" here'),
    ],
)
def test_a_store_of_other_rows_is_refused(tmp_path, changed, says):
    filled(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=says):
        opened(tmp_path, **changed)
    assert contents(tmp_path) == before


def test_the_order_of_entries_does_not_matter(tmp_path):
    filled(tmp_path)
    turned = {name: MADE_OF[name] for name in reversed(MADE_OF)}
    assert store.missing(opened(tmp_path, made_of=turned, fields=FIELDS[::-1])) == []
    # Done-marks name the manifest, which must not follow the order either.
    assert store.read(opened(tmp_path, made_of=turned))["count"].tolist() == WHOLE["count"].tolist()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"ids": []}, "0 ids"),
        ({"ids": ["a", "b", "a"]}, "3 ids, 2 of them distinct"),
        ({"fields": []}, "0 fields"),
        ({"fields": [FIELDS[0], FIELDS[0]]}, "2 fields, 1 of them distinct"),
        ({"fields": [Field("../loss", (), "float32")]}, "named '../loss'"),
        ({"fields": [Field("x", (), "float33")]}, r"float33\[\]; give"),
        ({"fields": [Field("x", (2, 0), "int8")]}, r"int8\[2, 0\]; give axes of 1 or more"),
        ({"chunk": 0}, "chunk = 0"),
        ({"made_of": {"config": {"lr": np.float32(1)}}}, "made_of.config.lr is .* of type float32"),
        ({"made_of": {"config": {1: 2}}}, "made_of.config has the key 1, which is no string"),
    ],
)
def test_what_no_store_can_be_is_refused_before_anything_is_written(tmp_path, changed, says):
    with pytest.raises(InputError, match=says):
        opened(tmp_path / "s", **changed)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"loss": values(0)["loss"]}, r"values for the fields \['loss'\]; give them for"),
        ({**values(0), "gain": values(0)["loss"]}, r"\['count', 'gain', 'loss'\]; give them for"),
        (values(2), r"loss of chunk 0 is float32\[2, 3\]; give float32\[4, 3\]"),
        (
            {**values(0), "loss": values(0)["loss"].astype(np.float64)},
            r"loss of chunk 0 is float64\[4, 3\]; give float32\[4, 3\]",
        ),
        ({**values(0), "count": np.zeros((4, 1), np.int64)}, r"int64\[4, 1\]; give int64\[4\]"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, given, says):
    made = opened(tmp_path)
    with pytest.raises(InputError, match=says):
        store.write_chunk(made, 0, given)
    assert store.missing(made) == [0, 1, 2]


def test_a_done_chunk_keeps_its_values(tmp_path):
    made = filled(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"chunk 1 is done already, with other values"):
        store.write_chunk(made, 1, values(1, fill=0.5))
    assert contents(tmp_path) == before
    store.write_chunk(made, 1, values(1))
    assert contents(tmp_path) == before


def _chunk_file(path, field="loss", chunk=1):
    """Where a chunk lies: zarr names it by its place along every axis."""
    return path / "fields" / field / "c" / str(chunk) / ("0" if field == "loss" else "")


def _flip(file):
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "a flipped bit": lambda path: _flip(_chunk_file(path)),
    "cut off": lambda path: os.truncate(_chunk_file(path), 20),
    "emptied": lambda path: os.truncate(_chunk_file(path), 0),
    "deleted": lambda path: _chunk_file(path).unlink(),
    "another chunk's": lambda path: shutil.copy(_chunk_file(path, chunk=0), _chunk_file(path)),
    "the other field": lambda path: _flip(_chunk_file(path, "count")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_the_remedy_mends_it(tmp_path, damage):
    made = filled(tmp_path)
    before = contents(tmp_path)
    DAMAGES[damage](tmp_path)
    mark = tmp_path / "done" / "00000001.json"
    for fresh in (made, opened(tmp_path), store.load_store(tmp_path)):
        with pytest.raises(InputError, match="chunk 1") as error:
            store.read(fresh)
        assert f"Delete {mark} and run again: of the store only that chunk is made again" in str(
            error.value
        )
    assert store.read(made, stop=4)["loss"].tolist() == WHOLE["loss"][:4].tolist()
    mark.unlink()
    again = opened(tmp_path)
    assert store.missing(again) == [1]
    store.write_chunk(again, 1, values(1))
    assert contents(tmp_path) == before


def test_writing_the_same_values_again_mends_damage(tmp_path):
    made = filled(tmp_path)
    before = contents(tmp_path)
    DAMAGES["a flipped bit"](tmp_path)
    store.write_chunk(made, 1, values(1))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"sha256": null}', "CHUNK 0", "ANOTHER STORE"],
)
def test_a_done_mark_that_is_not_the_chunks_own_is_refused(tmp_path, content):
    made = filled(tmp_path / "s")
    mark = tmp_path / "s" / "done" / "00000001.json"
    if content == "CHUNK 0":
        content = (tmp_path / "s" / "done" / "00000000.json").read_bytes()
    if content == "ANOTHER STORE":
        other = opened(tmp_path / "other", made_of=MADE_OF | {"corpus": "c1"})
        store.write_chunk(other, 1, values(1))
        content = (tmp_path / "other" / "done" / "00000001.json").read_bytes()
    mark.write_bytes(content)
    with pytest.raises(InputError, match=f"{mark}: damaged.*Delete {mark} and run again"):
        store.read(made)
    with pytest.raises(InputError, match=f"{mark}: chunk 1 is done already, with other values"):
        store.write_chunk(made, 1, values(1))


def test_a_store_that_lost_its_arrays_is_not_read_as_zeros(tmp_path):
    filled(tmp_path)
    shutil.rmtree(tmp_path / "fields" / "loss")
    with pytest.raises(InputError, match=r"fields/loss/zarr.json: cannot be used"):
        store.load_store(tmp_path)
    made = opened(tmp_path)  # makes the array again, and finds it empty
    with pytest.raises(InputError, match=r"chunk 0 .* is damaged or lost"):
        store.read(made)


def test_results_without_a_manifest_are_refused(tmp_path):
    filled(tmp_path)
    kept = (tmp_path / "manifest.json").read_bytes()
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"but no manifest.json.*Restore the manifest"):
        opened(tmp_path)
    with pytest.raises(InputError, match=r"it lacks manifest.json"):
        store.load_store(tmp_path)
    (tmp_path / "manifest.json").write_bytes(kept)
    assert store.missing(opened(tmp_path)) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
@pytest.mark.parametrize("name", ["manifest.json", "ids.json", "fields/loss/zarr.json"])
def test_damaged_files_are_named(tmp_path, name, content):
    filled(tmp_path)
    (tmp_path / name).write_bytes(content)
    for call in (opened, store.load_store):
        with pytest.raises(InputError, match=name):
            call(tmp_path)


def test_lost_ids_and_metadata_are_made_again(tmp_path):
    filled(tmp_path)
    before = contents(tmp_path)
    for name in ("ids.json", "fields/loss/zarr.json"):
        (tmp_path / name).unlink()
        with pytest.raises(InputError, match=name):
            store.load_store(tmp_path)
        opened(tmp_path)
        assert contents(tmp_path) == before


def test_a_store_of_another_format_is_refused(tmp_path):
    filled(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": "tda_jax.store 2"}))
    with pytest.raises(InputError, match=r"of format 'tda_jax.store 2', not 'tda_jax.store 1'"):
        store.load_store(tmp_path)
    with pytest.raises(InputError, match=r'format is "tda_jax.store 2" there'):
        opened(tmp_path)


def test_no_store_is_made_where_none_can_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file"):
        opened(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(InputError, match="nosuch://bucket: cannot be opened"):
        opened("nosuch://bucket/")


def test_a_store_that_is_only_read_is_not_written(tmp_path):
    opened(tmp_path)
    with pytest.raises(InputError, match="chunk 0: cannot be written"):
        store.write_chunk(store.load_store(tmp_path), 0, values(0))
    assert store.missing(opened(tmp_path)) == [0, 1, 2]


def test_urls_and_relative_paths_name_the_same_store(tmp_path, monkeypatch):
    filled(f"file://{tmp_path}/s/")
    monkeypatch.chdir(tmp_path)
    for path in ("s", tmp_path / "s", f"file://{tmp_path}/s"):
        np.testing.assert_array_equal(store.read(opened(path))["loss"], WHOLE["loss"])


def test_a_hundred_thousand_tracks(tmp_path):
    ids = [f"collection/{i % 977}/a rather long name of a track {i}" for i in range(100_000)]
    given = {"ids": ids, "fields": [Field("loss", (2,), "float32")], "chunk": 2048}
    made, loss = opened(tmp_path, **given), np.arange(200_000, dtype=np.float32).reshape(-1, 2)
    for chunk in store.missing(made):
        here = store.rows(made, chunk)
        store.write_chunk(made, chunk, {"loss": loss[here.start : here.stop]})
    found = store.load_store(tmp_path)
    assert found.ids == tuple(ids)
    np.testing.assert_array_equal(store.read(found)["loss"], loss)
    with pytest.raises(InputError, match=r"Only there: \['collection/.* 99999'\], only here"):
        opened(tmp_path, **given | {"ids": [*ids[:-1], "new"]})


# What a process of its own runs: this file's helpers without pytest, then what a test adds.
PROCESS = f"""
import os, signal, sys, time
sys.path.insert(0, {ROOT!r})
import numpy as np
from tda_jax import store
from tda_jax.store import Field
IDS, FIELDS, MADE_OF = {IDS!r}, {[tuple(f) for f in FIELDS]!r}, {MADE_OF!r}
CHUNK = {CHUNK}
path = sys.argv[1]

def values(chunk):
    here = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, len(IDS)))
    loss = (here[:, None] * 10 + np.arange(3)).astype(np.float32)
    return {{"loss": loss, "count": here * 7}}

def opened():
    return store.open_store(path, IDS, [Field(*f) for f in FIELDS], MADE_OF, CHUNK)
"""


def process(path, body, *arguments):
    code = PROCESS + textwrap.dedent(body)
    command = [sys.executable, "-c", code, str(path), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(started):
    out, err = started.communicate(timeout=120)
    assert started.returncode == 0, err
    return out


def test_processes_that_open_at_once_share_one_store(tmp_path):
    filled(tmp_path / "alone")
    body = """
        print("ready", flush=True)
        while not os.path.exists(path + ".go"):
            pass
        made = opened()
        for chunk in range(int(sys.argv[2]), 3, 3):
            store.write_chunk(made, chunk, values(chunk))
    """
    running = [process(tmp_path / "s", body, rank) for rank in range(3)]
    assert [started.stdout.readline() for started in running] == ["ready\n"] * 3
    (tmp_path / "s.go").touch()
    for started in running:
        finished(started)
    assert contents(tmp_path / "s") == contents(tmp_path / "alone")
    np.testing.assert_array_equal(store.read(opened(tmp_path / "s"))["loss"], WHOLE["loss"])


def test_one_process_creates_and_another_goes_on(tmp_path):
    filled(tmp_path / "alone")
    made = opened(tmp_path / "s")
    store.write_chunk(made, 0, values(0))
    out = finished(
        process(
            tmp_path / "s",
            """
            made = opened()
            print(store.missing(made))
            store.write_chunk(made, 2, values(2))
            """,
        )
    )
    assert out.strip() == "[1, 2]"
    assert store.missing(made) == [1]  # seen by the store that was open all the time
    np.testing.assert_array_equal(store.read(made, start=8)["loss"], WHOLE["loss"][8:])
    store.write_chunk(made, 1, values(1))
    assert contents(tmp_path / "s") == contents(tmp_path / "alone")


def test_a_kill_between_data_and_done_mark_leaves_the_chunk_missing(tmp_path):
    filled(tmp_path / "alone")
    killed = process(
        tmp_path / "s",
        """
        made = opened()
        store.write_chunk(made, 0, values(0))
        create = store.layout.create_file
        def die(files, key, content):
            os.kill(os.getpid(), signal.SIGKILL)
        store.layout.create_file = die
        store.write_chunk(made, 1, values(1))
        """,
    )
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "s" / "fields" / "count" / "c" / "1").exists()  # the data was there
    made = opened(tmp_path / "s")
    assert store.missing(made) == [1, 2]
    for chunk in store.missing(made):
        store.write_chunk(made, chunk, values(chunk))
    assert contents(tmp_path / "s") == contents(tmp_path / "alone")


def test_killed_at_any_moment_and_resumed_equals_undisturbed(tmp_path):
    filled(tmp_path / "alone")
    body = """
        print("ready", flush=True)
        sys.stdin.readline()
        made = opened()
        for chunk in store.missing(made):
            store.write_chunk(made, chunk, values(chunk))
    """
    code = PROCESS + textwrap.dedent(body)
    killed = 0
    for wait in np.linspace(0, 0.03, 8):
        started = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "s")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert started.stdout.readline() == "ready\n"
        started.stdin.write("\n")
        started.stdin.flush()
        time.sleep(wait)
        started.kill()
        started.communicate(timeout=120)
        killed += started.returncode == -signal.SIGKILL
        if (tmp_path / "s" / "manifest.json").exists():
            made = opened(tmp_path / "s")
            for chunk in {0, 1, 2} - {*store.missing(made)}:  # what is marked is sound
                here = store.rows(made, chunk)
                found = store.read(made, start=here.start, stop=here.stop)
                np.testing.assert_array_equal(found["loss"], values(chunk)["loss"])
    assert killed >= 2
    filled(tmp_path / "s")
    assert contents(tmp_path / "s") == contents(tmp_path / "alone")


def test_of_two_that_make_different_stores_at_once_one_is_refused(tmp_path):
    body = """
        print("ready", flush=True)
        while not os.path.exists(path + "/go"):
            pass
        for i in range(30):
            made_of = MADE_OF | {"corpus": sys.argv[2]}
            try:
                store.open_store(f"{path}/{i}", IDS, [Field(*f) for f in FIELDS], made_of, CHUNK)
                print(i)
            except store.InputError as error:
                assert "made from something else: made_of.corpus is" in str(error), error
    """
    running = [process(tmp_path, body, name) for name in ("c1", "c2")]
    assert [started.stdout.readline() for started in running] == ["ready\n"] * 2
    (tmp_path / "go").touch()
    won = [set(map(int, finished(started).split())) for started in running]
    assert won[0] | won[1] == set(range(30))
    assert not won[0] & won[1]
    for i in range(30):
        made = store.load_store(tmp_path / str(i))
        assert made.manifest["made_of"]["corpus"] == ("c1" if i in won[0] else "c2")
