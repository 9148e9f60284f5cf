"""An encoded corpus goes through TFDS and comes back as it was."""

import json
import re

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tda_jax.corpus import dataset, stored
from tda_jax.errors import InputError
from tda_jax.examples import in_memory
from tda_jax.models.denoiser import Condition

RNG = np.random.default_rng(0)


def row(name, captions, member=True, start=0.0, track=None):
    n = len(captions)
    heard = RNG.standard_normal((2, 7)).astype(np.float32)
    mean, std = RNG.standard_normal((2, 6, 4, 3)).astype(np.float32)
    text = RNG.standard_normal((n, 5, 7)).astype(np.float32)
    condition = Condition(None, text, np.arange(5)[None] < np.arange(2, n + 2)[:, None])
    return dataset.Row(
        *(name, track or name, member, start, mean, std, heard),
        *(4, captions, condition, {"artist": "Zoë"}),
    )


ROWS = [
    row("b", ["one"]),
    row("a", ["one", "zwei – 二"]),
    row("c@0", ["x"], False, 0.0, "c"),
    row("c@5", ["x"], False, 5.5, "c"),
]
SIDES = [r for r in ROWS if r.member], [r for r in ROWS if not r.member]


def written(tmp_path):
    dataset.write_dataset(tmp_path / "data", *SIDES, {"vae": "1"})
    return tmp_path / "data"


def test_rows_come_back(tmp_path):
    found = list(dataset.read_rows(written(tmp_path)))
    assert [r.id for r in found] == ["b", "a", "c@0", "c@5"]
    for got, wanted in zip(found, ROWS, strict=True):
        np.testing.assert_array_equal(got.mean, wanted.mean)
        np.testing.assert_array_equal(got.std, wanted.std)
        np.testing.assert_array_equal(got.log_mel, wanted.log_mel)
        np.testing.assert_array_equal(got.condition.text, wanted.condition.text)
        np.testing.assert_array_equal(got.condition.text_mask, wanted.condition.text_mask)
        assert got.condition.embedding is None
        assert got[:4] == wanted[:4]
        assert got[7:9] == wanted[7:9]
        assert got.metadata == wanted.metadata
    assert dataset.made_of(tmp_path / "data") == {"vae": "1"}


def test_any_user_of_tfds_reads_it(tmp_path):
    source = tfds.builder_from_directory(str(written(tmp_path))).as_data_source(split="held_out")
    assert [found["id"] for found in source] == [b"c@0", b"c@5"]
    assert source[1]["start"] == np.float32(5.5)


def test_a_corpus_has_a_track_for_each_window_and_caption(tmp_path):
    corpus = dataset.read_dataset(written(tmp_path))
    assert corpus.ids == ("a caption 1", "a caption 2", "b", "c@0", "c@5")
    np.testing.assert_array_equal(corpus.members, [True, True, True, False, False])
    np.testing.assert_array_equal(corpus.examples.latent[1], ROWS[1].mean)
    np.testing.assert_array_equal(corpus.examples.condition.text[1], ROWS[1].condition.text[1])
    np.testing.assert_array_equal(corpus.examples.mask[0], [1, 1, 1, 1, 0, 0])
    first = {"artist": "Zoë", "track": "a", "caption": "zwei – 二", "window_start": 0.0}
    assert corpus.metadata[1] == first
    assert [m["track"] for m in corpus.metadata] == ["a", "a", "b", "c", "c"]


def test_each_unit_has_the_log_mel_of_its_window(tmp_path):
    found = dataset.read_log_mels(written(tmp_path))
    assert list(found) == ["b", "a caption 1", "a caption 2", "c@0", "c@5"]
    np.testing.assert_array_equal(found["a caption 2"], ROWS[1].log_mel)
    np.testing.assert_array_equal(found["c@5"], ROWS[3].log_mel)


def test_it_is_written_once_and_never_over_another(tmp_path):
    folder = written(tmp_path)
    before = (folder / "dataset_info.json").stat().st_mtime_ns
    dataset.write_dataset(folder, *SIDES, {"vae": "1"})
    assert (folder / "dataset_info.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"made from something else: vae is .*1.* there"):
        dataset.write_dataset(folder, *SIDES, {"vae": "2"})


def test_what_a_kill_left_is_no_dataset(tmp_path):
    (tmp_path / "data.part" / "latents").mkdir(parents=True)
    assert not stored.is_dataset(tmp_path / "data")
    assert len(list(dataset.read_rows(written(tmp_path)))) == 4
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_what_is_no_dataset_of_ours_is_refused(tmp_path):
    with pytest.raises(InputError, match="no dataset there"):
        list(dataset.read_rows(tmp_path))
    with pytest.raises(InputError, match="no track is left"):
        dataset.write_dataset(tmp_path / "data", [], [], {})
    folder = written(tmp_path)
    (folder / "metadata.json").write_text(json.dumps({"other": 1}))
    with pytest.raises(InputError, match="not one that `encode_corpus` wrote"):
        list(dataset.read_rows(folder))


def half(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]  # the rest of a small file is padding


@pytest.mark.parametrize("damage", [half, flipped, lambda data: b"", None])
def test_a_damaged_file_is_named_and_nothing_is_destroyed(tmp_path, damage):
    folder = written(tmp_path)
    (shard,) = folder.glob("*held_out*")
    (other,) = folder.glob("*train*")
    good = shard.read_bytes()
    assert len(dataset.read_dataset(folder).ids) == 5
    if damage is None:
        shard.unlink()
    else:
        shard.write_bytes(damage(good))
    words = rf"{re.escape(str(folder))}: {shard.name} cannot be read \(.*Restore what is damaged"
    with pytest.raises(InputError, match=words):
        dataset.read_dataset(folder)
    assert other.stat().st_size > 0
    shard.write_bytes(good)
    assert len(dataset.read_dataset(folder).ids) == 5


def test_rows_are_read_when_they_are_asked_for_and_no_others(tmp_path, monkeypatch):
    asked = []
    reader = dataset._reader

    def spied(folder):
        read, n = reader(folder)
        return (lambda rows: asked.append(len(rows)) or read(rows)), n

    monkeypatch.setattr(dataset, "_reader", spied)
    corpus = dataset.read_dataset(written(tmp_path))
    asked.clear()
    assert corpus.ids[:2] == ("a caption 1", "a caption 2")
    some = jax.tree.map(lambda x: x[:2], corpus.examples)
    assert asked == [1]  # of one window, for latents and conditions alike
    whole = jax.tree.leaves(in_memory(corpus).examples)
    assert all(np.array_equal(x, y[:2]) for x, y in zip(jax.tree.leaves(some), whole, strict=True))


@pytest.mark.parametrize("error", [OSError(28, "No space"), RuntimeError("write() failed")])
def test_a_disk_that_refuses_is_said_and_leaves_no_dataset(tmp_path, monkeypatch, error):
    def refuse(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tfds.core.SequentialWriter, "add_examples", refuse)
        with pytest.raises(InputError, match=r"data: cannot be written \(.*free space"):
            written(tmp_path)
    assert not stored.is_dataset(tmp_path / "data")
    assert len(dataset.read_dataset(written(tmp_path)).ids) == 5  # a new start finishes it


def test_of_several_files_the_damaged_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_IN_A_SHARD", 1)
    folder = written(tmp_path)
    read, n = dataset._reader(folder)
    shards = sorted(folder.glob("*held_out*"))
    assert (len(shards), n) == (2, 4)
    shards[1].write_bytes(b"")
    assert len(read(np.array([0, 2]))) == 2
    with pytest.raises(InputError, match=rf"{shards[1].name} cannot be read"):
        read(np.array([3]))
