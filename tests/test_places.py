"""What files do, in a folder and in a bucket alike."""

from contextlib import suppress

import pytest

from tda_jax import places
from tda_jax.artifact import whole_file
from tda_jax.errors import InputError


@pytest.fixture(params=["folder", "bucket"])
def root(request, tmp_path, bucket):
    return places.place("gs://bucket/deep/run" if request.param == "bucket" else tmp_path / "run")


def put(path, content):
    with whole_file(path) as part:
        part.write_bytes(content)


def test_what_is_written_is_read(root):
    path = root / "queries" / "a query.json"
    assert not places.exists(path)
    with pytest.raises(FileNotFoundError):
        places.read(path)
    for content in (b"first", b"second, longer", b""):
        put(path, content)
        assert places.read(path) == content
        assert places.exists(path)
    put(path, b"0123456789")
    assert places.read(path, 2, 5) == b"234"


def test_files_of_a_folder_itself_are_listed_by_name(root):
    assert places.listed(root, ".json") == []
    for name in ("b.json", "a.json", "c.txt", "below/d.json", "bb.json", "e.json", "f.json"):
        put(root / name, b"x")
    wanted = [root / name for name in ("a.json", "b.json", "bb.json", "e.json", "f.json")]
    assert places.listed(root, ".json") == wanted
    assert places.listed(root.parent, ".json") == []


def test_what_is_deleted_is_gone_and_nothing_else(root):
    for name in ("a", "b", "below/c", "below/deep/d", "belowness"):
        put(root / name, b"x")
    places.delete(root / "a")
    places.delete(root / "a")
    places.delete_folder(root / "below")
    places.delete_folder(root / "below")
    there = {
        n for n in ("a", "b", "below/c", "below/deep/d", "belowness") if places.exists(root / n)
    }
    assert there == {"b", "belowness"}


def test_a_file_that_is_not_finished_does_not_appear(root):
    put(root / "x", b"before")
    with suppress(RuntimeError), whole_file(root / "x") as part:
        part.write_bytes(b"half")
        raise RuntimeError
    assert places.read(root / "x") == b"before"
    assert places.listed(root, "") == [root / "x"]


def test_a_bucket_that_refuses_is_named(bucket):
    bucket.refusing = True
    with pytest.raises(InputError, match=r"gs://bucket/x/y: cannot be written \(.*this bucket may"):
        put(places.place("gs://bucket/x/y"), b"x")


@pytest.mark.parametrize("url", ["gs://b/x", "gs://bucket"])
def test_a_wrong_address_is_named(url):
    with pytest.raises(InputError, match=f"{url}: cannot be read .* Check the address"):
        places.exists(places.place(url))


@pytest.mark.parametrize("letter", "%?#|")
def test_an_address_that_libraries_read_in_several_ways_is_refused(letter):
    with pytest.raises(InputError, match="mean something in an address"):
        places.place(f"gs://bucket/a{letter}20b")


def test_to_know_that_a_file_is_there_none_of_it_is_read(bucket):
    path = places.place("gs://bucket/run/large")
    put(path, bytes(10**6))
    bucket.sent = 0
    assert places.exists(path)
    assert not places.exists(path.with_name("larg"))
    assert not places.exists(path.parent)
    assert bucket.sent < 10**4


def test_a_bucket_that_does_not_answer_is_told_soon(bucket, monkeypatch):
    places.reach(places.place("gs://bucket/run"))  # this one does
    monkeypatch.setattr(places, "_PATIENCE", 0.2)
    bucket.silent = 2.0
    with pytest.raises(InputError, match=r"gs://bucket/run: cannot be reached \(no answer within"):
        places.reach(places.place("gs://bucket/run"))


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / ("x" * 300)
    with pytest.raises(InputError, match=r"cannot be read .*File name too long"):
        places.exists(path)


@pytest.mark.parametrize("url", ["GS://bucket/a", "file:///a", "https://x.org/a"])
def test_a_url_of_no_bucket_is_named(url):
    assert places.is_url(url)
    with pytest.raises(InputError, match=f"{url}: no address of a bucket; give gs:// or s3://"):
        places.place(url)


@pytest.mark.parametrize("text", ["s3://bucket/x", "gs://bucket"])
def test_urls(text):
    assert places.is_url(text)
    assert places.is_url(places.place(text))
    assert str(places.place(f"{text}/") / "a") == f"{text}/a"


@pytest.mark.parametrize("text", ["", ".", "/a/b", "a:b", "C:\\x", "a: //b", "relative/gs:"])
def test_folders(text):
    assert not places.is_url(text)
    assert not places.is_url(places.place(text))
