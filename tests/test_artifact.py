import resource
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tda_jax import artifact, places
from tda_jax.errors import InputError

MADE_OF = {"corpus": "c0", "config": {"group": "all", "draws": 2048}}
NOTES = {"seconds": 1.5, "warnings": ["none"], "loss": None}


def arrays():
    rng = np.random.default_rng(0)
    return {
        "a/kernel": rng.standard_normal((3, 4)).astype(np.float32),
        "a/bias": rng.standard_normal(4),
        "half": rng.standard_normal((2, 2)).astype(ml_dtypes.bfloat16),
        "turned": np.asfortranarray(rng.standard_normal((2, 3))),
        "strided": np.arange(10)[::3],
        "big-endian": np.arange(3, dtype=">i4"),
        "number": np.float64(np.pi) * np.ones(()),
        "none": np.zeros((0, 3), np.float16),
        "flags": np.array([True, False]),
        "nan": np.array([np.nan, -0.0, np.inf], np.float32),
    }


def test_arrays_come_back_bit_by_bit(tmp_path):
    path = tmp_path / "new" / "fisher.safetensors"
    artifact.save(path, arrays(), MADE_OF, NOTES)
    found, notes = artifact.load(path, MADE_OF)
    assert notes == NOTES
    assert artifact.describe(path) == (MADE_OF, NOTES)
    assert found.keys() == arrays().keys()
    for name, x in arrays().items():
        assert (found[name].shape, found[name].dtype.name) == (x.shape, x.dtype.name), name
        assert found[name].tobytes() == x.astype(x.dtype.newbyteorder("<")).tobytes(), name


def test_jax_arrays_and_tuples_are_taken(tmp_path):
    half = jnp.arange(4, dtype=jnp.bfloat16) / 3
    artifact.save(tmp_path / "a", {"x": half}, {"shape": (1, 2)}, {})
    found, _ = artifact.load(tmp_path / "a", {"shape": (1, 2)})
    assert found["x"].dtype == ml_dtypes.bfloat16
    assert found["x"].tobytes() == np.asarray(half).tobytes()
    assert artifact.load(tmp_path / "a", {"shape": [1, 2]})[1] == {}


def test_the_file_is_plain_safetensors(tmp_path):
    artifact.save(tmp_path / "a", arrays(), MADE_OF, NOTES)
    found = load_file(tmp_path / "a")
    np.testing.assert_array_equal(found["a/kernel"], arrays()["a/kernel"])


@pytest.mark.parametrize(
    ("made_of", "says"),
    [
        ({**MADE_OF, "corpus": "c1"}, r'corpus is "c0" there and "c1" here'),
        ({"corpus": "c0", "config": {"group": "all"}}, "config.draws is 2048 there and absent"),
        ({}, r'corpus is "c0" there and absent here'),
    ],
)
def test_what_was_made_from_something_else_is_refused(tmp_path, made_of, says):
    artifact.save(tmp_path / "a", arrays(), MADE_OF, NOTES)
    with pytest.raises(InputError, match=f"made from something else: .*{says}.*Give another path"):
        artifact.load(tmp_path / "a", made_of)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "a"
    artifact.save(path, arrays(), MADE_OF, NOTES)
    return path


@given(st.data())
def test_any_changed_bit_is_found(saved, data):
    content = bytearray(saved.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    damaged = saved.with_name("damaged")
    damaged.write_bytes(content)
    # Only white space of the header may change without harm.
    assert _loaded(damaged) in (None, _loaded(saved))


def _loaded(path):
    try:
        found, notes = artifact.load(path, MADE_OF)
    except InputError:
        return None
    return notes, {name: (x.shape, x.dtype, x.tobytes()) for name, x in found.items()}


@given(st.data())
def test_a_file_that_is_cut_off_is_refused(saved, data):
    content = saved.read_bytes()
    cut = saved.with_name("cut")
    cut.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(InputError, match=f"{cut}: damaged or no artifact"):
        artifact.load(cut, MADE_OF)


def test_damage_is_told_from_another_origin(tmp_path):
    artifact.save(tmp_path / "a", arrays(), MADE_OF, NOTES)
    content = (tmp_path / "a").read_bytes()
    assert content.count(b"2048") == 1
    (tmp_path / "a").write_bytes(content.replace(b"2048", b"2049"))
    with pytest.raises(InputError, match="damaged in its header"):
        artifact.load(tmp_path / "a", MADE_OF)
    (tmp_path / "a").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="does not hold what was written"):
        artifact.load(tmp_path / "a", MADE_OF)


def test_what_is_no_artifact_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        artifact.load(tmp_path / "a", MADE_OF)
    with pytest.raises(InputError, match="no such file"):
        artifact.load(tmp_path, MADE_OF)
    save_file({"x": np.zeros(2)}, tmp_path / "a")
    with pytest.raises(InputError, match=r"its format is None and not 'tda_jax.artifact 1'"):
        artifact.load(tmp_path / "a", MADE_OF)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (({"x": np.array(["a"])}, {}, {}), "no artifact holds str.* 'x'"),
        (({"x": np.array([None])}, {}, {}), "no artifact holds object 'x'"),
        (({"x": np.zeros(1, np.complex128)}, {}, {}), "no artifact holds complex128 'x'"),
        (({"__metadata__": np.zeros(1)}, {}, {}), "__metadata__"),
        (({}, {"seed": np.int64(1)}, {}), r"made_of.seed is np.int64\(1\) of type int64"),
        (({}, {}, {"path": Path("a")}), r"notes.path is PosixPath\('a'\) of type PosixPath"),
        (({}, {}, {"list": [1, {2}]}), r"notes.list\[1\] is \{2\} of type set"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_leaves_the_old_file(tmp_path, given, says):
    artifact.save(tmp_path / "a", arrays(), MADE_OF, NOTES)
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(InputError, match=says):
        artifact.save(tmp_path / "a", *given)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/a: cannot be written"):
        artifact.save(tmp_path / "file" / "a", {}, {}, {})


def test_a_full_disk_leaves_the_old_file_and_no_part_of_a_new_one(tmp_path):
    artifact.save(tmp_path / "a", {"x": np.arange(4.0)}, MADE_OF, NOTES)
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
import numpy as np
from pathlib import Path
from tda_jax import artifact, places
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, {resource.RLIM_INFINITY}))
try:
    artifact.save(Path(sys.argv[1]), {{"x": np.zeros(100_000)}}, {{}}, {{}})
except artifact.InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert f"{tmp_path / 'a'}: cannot be written" in done.stdout
    assert "free space" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert artifact.load(tmp_path / "a", MADE_OF)[0]["x"].tolist() == [0, 1, 2, 3]


def test_a_file_is_whole_or_not_there(tmp_path):

    def interrupted():
        with artifact.whole_file(tmp_path / "a") as part:
            part.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with artifact.whole_file(tmp_path / "a") as part:
        part.write_text("whole")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_claimed_once_and_for_one_thing(tmp_path):
    path = tmp_path / "made_of.json"
    artifact.claim(path, {"seed": 0, "sizes": (1, 2)}, "Go elsewhere")
    artifact.claim(path, {"seed": 0, "sizes": (1, 2)}, "Go elsewhere")
    with pytest.raises(InputError, match=r"seed is 0 there and 1 here.*Go elsewhere"):
        artifact.claim(path, {"seed": 1, "sizes": (1, 2)}, "Go elsewhere")
    path.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        artifact.claim(path, {"seed": 0}, "Go elsewhere")


def test_a_folder_of_other_results_is_not_claimed(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(InputError, match=r"such as summary\.json. Go elsewhere"):
        artifact.claim(tmp_path / "made_of.json", {}, "Go elsewhere")
    assert not (tmp_path / "made_of.json").exists()


def test_what_a_kill_left_is_swept_and_nothing_else(tmp_path):
    artifact.save(tmp_path / "whole.safetensors", {"x": np.ones(2)}, {}, {})
    deep = tmp_path / "queries" / "a"
    deep.mkdir(parents=True)
    for folder in (tmp_path, deep):
        (folder / "whole.safetensors.0123.part").write_bytes(b"half")
        (folder / "part.json").write_text("{}")
    artifact.sweep(tmp_path)
    kept = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert kept == {
        "whole.safetensors",
        "part.json",
        "queries/a/part.json",
        "queries/a/whole.safetensors.0123.part",
    }
    artifact.sweep(tmp_path, "queries/*/*")
    assert not list(tmp_path.rglob("*.part"))
    artifact.sweep(tmp_path / "nothing")


def test_of_an_artifact_in_a_bucket_no_more_is_read_than_is_asked_for(bucket):
    path = places.place("gs://bucket/run/a.safetensors")
    arrays = {"x": np.arange(10**5, dtype=np.float32)}
    artifact.save(path, arrays, MADE_OF, NOTES)
    bucket.sent = 0
    assert artifact.notes_of(path, MADE_OF) == NOTES
    assert artifact.describe(path) == (MADE_OF, NOTES)
    assert bucket.sent < 10**4
    found, notes = artifact.load(path, MADE_OF)
    np.testing.assert_array_equal(found["x"], arrays["x"])
    assert notes == NOTES
    assert bucket.sent < 4 * 10**5 + 2 * 10**4


@pytest.mark.parametrize("at", [3, 200, 10**5])
def test_a_damaged_artifact_in_a_bucket_is_refused(bucket, at):
    path = places.place("gs://bucket/run/a.safetensors")
    artifact.save(path, {"x": np.arange(10**5, dtype=np.float32)}, MADE_OF, NOTES)
    content = bytearray(bucket.objects["run/a.safetensors"].content)
    content[at] ^= 8
    places.write(path, bytes(content))
    with pytest.raises(InputError, match=r"gs://bucket/run/a.safetensors: .*(damaged|artifact)"):
        artifact.load(path, MADE_OF)


def test_what_is_no_artifact_in_a_bucket_is_refused(bucket):
    path = places.place("gs://bucket/run/a.safetensors")
    places.write(path, b"\xff" * 100)
    for read in (artifact.notes_of, artifact.load):
        with pytest.raises(InputError, match="damaged or no artifact"):
            read(path, MADE_OF)


@pytest.mark.parametrize("length", [0, 5, 100])
def test_an_artifact_that_is_cut_short_in_a_bucket_is_refused(bucket, length):
    path = places.place("gs://bucket/run/a.safetensors")
    artifact.save(path, {"x": np.arange(10**5, dtype=np.float32)}, MADE_OF, NOTES)
    places.write(path, bucket.objects["run/a.safetensors"].content[:length])
    for read in (artifact.notes_of, artifact.load):
        with pytest.raises(InputError, match=r"a.safetensors: damaged or no artifact .* Delete it"):
            read(path, MADE_OF)


def test_what_is_not_in_a_bucket_is_told(bucket):
    path = places.place("gs://bucket/run/a.safetensors")
    for read in (artifact.notes_of, artifact.load):
        with pytest.raises(InputError, match=r"gs://bucket/run/a.safetensors: no such file"):
            read(path, MADE_OF)


def test_a_bucket_keeps_every_dtype_that_a_folder_keeps(bucket, tmp_path):
    kept = arrays() | {"complex": np.ones(3, np.complex64), "bools": np.array([True, False])}
    kept |= {f"u{n}": np.arange(4, dtype=f"u{n}") for n in (1, 2, 4, 8)} | {
        "empty": np.ones((0, 2))
    }
    kept["half float"] = np.ones(2, np.float16)
    for path in (tmp_path / "a.safetensors", places.place("gs://bucket/a.safetensors")):
        artifact.save(path, kept, MADE_OF, NOTES)
        found, _ = artifact.load(path, MADE_OF)
        assert found.keys() == kept.keys()
        for name, x in kept.items():
            wanted = np.asarray(x, order="C")
            assert found[name].dtype == wanted.dtype.newbyteorder("=")
            assert found[name].shape == wanted.shape
            np.testing.assert_array_equal(found[name], wanted)
            found[name][...] = 0  # it is the reader's own
