import hashlib
import json
import os

import pytest

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
