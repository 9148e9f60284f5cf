import inspect

import tensorstore as ts

from tda_jax import manifest


class Raced:
    """Files in which another process writes just after the first look."""

    def __init__(self, path):
        self.tried = []
        self.files = ts.KvStore.open(manifest.place(str(path))).result()

    def read(self, key):
        found = self.files.read(key)
        if found.result().state == "missing":
            self.files.write(key, b"theirs").result()
        return found

    def write(self, key, value, **condition):
        self.tried.append(value)
        return self.files.write(key, value, **condition)


def test_the_first_of_two_writers_stays(tmp_path):
    files = Raced(tmp_path)
    assert inspect.unwrap(manifest.create_file)(files, "manifest.json", b"ours") == b"theirs"
    assert files.tried == [b"ours"]  # and came too late
    assert (tmp_path / "manifest.json").read_bytes() == b"theirs"


def test_a_file_is_written_once(tmp_path):
    files = ts.KvStore.open(manifest.place(str(tmp_path))).result()
    assert manifest.create_file(files, "a", b"1") == b"1"
    assert manifest.create_file(files, "a", b"2") == b"1"
    assert (tmp_path / "a").read_bytes() == b"1"


def test_equal_values_have_equal_bytes():
    assert manifest.encode({"a": 1, "b": [2]}) == manifest.encode({"b": [2], "a": 1})


def test_places_below_a_store():
    assert manifest.place("/a/b", "fields/x/") == {"driver": "file", "path": "/a/b/fields/x/"}
    bucket = manifest.place(manifest.absolute("gs://bucket/deep/"), "fields/x/")
    assert bucket == {"driver": "gcs", "bucket": "bucket", "path": "deep/fields/x/"}
