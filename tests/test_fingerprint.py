import hashlib
import json
import os
import shutil
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import jaxlib
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tda_jax import fingerprint
from tda_jax.errors import InputError


def test_is_the_hash_that_it_says(tmp_path):
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one!")
    lines = [["a", 4, hashlib.sha256(b"one!").hexdigest()]]
    lines.append(["b", 3, hashlib.sha256(b"two").hexdigest()])
    expected = hashlib.sha256(json.dumps(lines).encode()).hexdigest()
    assert fingerprint.of_files([tmp_path / "b", tmp_path / "a"]) == expected
    assert fingerprint.of_files([tmp_path / "a", tmp_path / "b"]) == expected


def test_follows_name_and_content_not_place(tmp_path):
    for folder, name, content in [("x", "w", b"1"), ("y", "w", b"1"), ("z", "v", b"1")]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content)
    first = fingerprint.of_files([tmp_path / "x" / "w"])
    assert fingerprint.of_files([tmp_path / "y" / "w"]) == first
    assert fingerprint.of_files([tmp_path / "z" / "v"]) != first
    (tmp_path / "x" / "w").write_bytes(b"2")
    assert fingerprint.of_files([tmp_path / "x" / "w"]) != first


def test_refuses_what_it_cannot_read(tmp_path):
    with pytest.raises(InputError, match=r"gone: cannot be read"):
        fingerprint.of_files([tmp_path / "gone"])
    with pytest.raises(InputError, match="no files"):
        fingerprint.of_files([])


def test_memo_saves_the_reading_and_notices_a_change(tmp_path, monkeypatch):
    file, memo = tmp_path / "w", tmp_path / "cache" / "hashes.json"
    file.write_bytes(b"1")
    monkeypatch.setattr(fingerprint, "_SETTLED_NS", 0)
    first = fingerprint.of_files([file], memo)
    assert first == fingerprint.of_files([file]) == fingerprint.of_files([file], memo)
    # What the memo says is believed while the stamp holds: that is the saving ...
    kept = json.loads(memo.read_text())
    kept[str(file)]["sha256"] = "0" * 64
    memo.write_text(json.dumps(kept))
    assert fingerprint.of_files([file], memo) != first
    # ... and not a moment longer.
    os.utime(file, ns=(0, 0))
    assert fingerprint.of_files([file], memo) == first


def test_a_file_that_has_just_changed_is_not_kept(tmp_path):
    (tmp_path / "w").write_bytes(b"1")
    fingerprint.of_files([tmp_path / "w"], tmp_path / "memo")
    assert json.loads((tmp_path / "memo").read_text()) == {}


def test_new_content_with_the_old_time_of_change_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_SETTLED_NS", 0)
    file, memo = tmp_path / "w", tmp_path / "memo"
    file.write_bytes(b"1")
    first, before = fingerprint.of_files([file], memo), file.stat()
    file.write_bytes(b"2")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fingerprint.of_files([file], memo) != first


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"w": 1}', '{"PATH": {}}', '{"PATH": {"stamp": 1}}']
)
def test_a_damaged_memo_counts_as_empty(tmp_path, damage):
    (tmp_path / "w").write_bytes(b"1")
    (tmp_path / "memo").write_text(damage.replace("PATH", str(tmp_path / "w")))
    found = fingerprint.of_files([tmp_path / "w"], tmp_path / "memo")
    assert found == fingerprint.of_files([tmp_path / "w"])


def test_text_parts_do_not_run_into_each_other():
    assert fingerprint.of_text("ab", "c") != fingerprint.of_text("a", "bc")


def test_of_an_array_counts_elements_in_order():
    x = np.arange(6, dtype="<i4").reshape(2, 3)
    assert fingerprint.of_array(x) == hashlib.sha256(x.tobytes()).hexdigest()
    same = (x.astype(">i4"), np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], jnp.asarray(x))
    assert {fingerprint.of_array(y) for y in same} == {fingerprint.of_array(x)}
    assert fingerprint.of_array(x.T) != fingerprint.of_array(x)
    half = np.arange(3).astype(ml_dtypes.bfloat16)
    assert fingerprint.of_array(half) == hashlib.sha256(half.tobytes()).hexdigest()
    assert fingerprint.of_array(np.zeros((0, 2))) == hashlib.sha256(b"").hexdigest()
    assert fingerprint.of_array(np.ones(())) == hashlib.sha256(np.ones(()).tobytes()).hexdigest()


def test_of_code_follows_what_a_module_imports(tmp_path):
    def package(name, **changes):
        files = {
            "x.py": "from p.deep import y\n",
            "deep/__init__.py": "",
            "deep/y.py": "def f():\n    import p.z as z\n",
            "z.py": "from os import path\nimport numpy.linalg\n",
            "apart.py": "import p.x\n",
        }
        for path, content in (files | {k.replace("_", "."): v for k, v in changes.items()}).items():
            file = tmp_path / name / "p" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return tmp_path / name / "p"

    def code(folder, *modules):
        return fingerprint.of_code(*(modules or ("p.x",)), package=folder)

    first = package("a")
    assert code(package("b", apart_py="", notes_txt="1")) == code(first)
    assert code(package("c", z_py="1")) != code(first)
    assert code(package("d", x_py="from p.deep import y  # said\n")) != code(first)
    assert code(first, "p.x", "p.apart") == code(first, "p.apart", "p.x") != code(first)
    (first / "deep" / "__init__.py").write_text("1")
    assert code(first) != code(tmp_path / "b" / "p")
    with pytest.raises(InputError, match=r"no source of \['p.nowhere'\]"):
        code(first, "p.x", "p.nowhere")


def test_of_code_is_of_this_package(tmp_path):
    folder = Path(fingerprint.__file__).parent
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    name = "tda_jax.attribution.unet"

    def changed(path):
        with (copy / path).open("a") as file:
            file.write("\n")
        return fingerprint.of_code(name, package=copy) != fingerprint.of_code(name)

    assert fingerprint.of_code(name) == fingerprint.of_code(name, package=copy)
    assert not changed("report/figures.py")
    assert changed("models/unet.py")


def test_versions_are_those_that_run():
    found = fingerprint.versions()
    jaxs = {"jax": jax.__version__, "jaxlib": jaxlib.__version__}
    assert found == {
        "flax": flax.__version__,
        **jaxs,
        "numpy": np.__version__,
        "optax": optax.__version__,
    }


def test_plain_is_what_json_gives_back():
    value = {"a": (1, 2.5, None), "b": {"c": [True, "x", np.float64(0.1)], "d": {}}}
    assert fingerprint.plain(value, "v") == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": {"b": {1, 2}}}, r"v.a.b is \{1, 2\} of type set"),
        ({"a": [0, np.float32(1)]}, r"v.a\[1\] is np.float32\(1.0\) of type float32"),
        ({"a": {("b",): 1}}, r"v.a has the key \('b',\), which is no string"),
    ],
)
def test_what_json_does_not_keep_is_refused(value, says):
    with pytest.raises(InputError, match=says):
        fingerprint.plain(value, "v")


@pytest.mark.parametrize(
    ("there", "here", "says"),
    [
        ({"a": 1}, {"a": 2}, "a is 1 there and 2 here"),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, r"a\.c is 2 there and 3 here"),
        ({"a": 1}, {"a": 1, "b": None}, "b is absent there and null here"),
        ({"a": {}}, {"a": {"b": 1}}, r"a is \{\} there and absent here; a\.b is absent there"),
        ({"a": True}, {"a": 1}, "a is true there and 1 here"),
        ({"a": [1, 2]}, {"a": [2, 1]}, r"a is \[1, 2\] there and \[2, 1\] here"),
        ({"a.b": 1}, {"a": {"b": 1}}, "a.b is 1 there and absent here; a.b is absent there"),
    ],
)
def test_each_difference_is_shown(there, here, says):
    with pytest.raises(InputError, match=f"^f: made from something else: {says}.*Delete it$"):
        fingerprint.refuse_other("f", there, here, "Delete it")


def test_many_differences_are_counted():
    with pytest.raises(InputError, match=r"k8 is 8 there and -8 here; and 4 more\. Delete it"):
        fingerprint.refuse_other(
            "f",
            {f"k{i}": i for i in range(13)},
            {f"k{i}": -i for i in range(13)},
            "Delete it",
        )


@given(st.recursive(st.integers(0, 2), lambda x: st.dictionaries(st.sampled_from("ab."), x)))
def test_what_is_equal_is_not_refused(tree):
    fingerprint.refuse_other("f", tree, json.loads(json.dumps(tree)), "Delete it")
