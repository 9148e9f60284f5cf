"""A lab's own TFDS dataset is the same corpus as a folder of the same arrays."""

import json

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from tda_jax.corpus import arrays, dataset, stored, tensors
from tda_jax.errors import InputError
from tda_jax.examples import corpus_fingerprint, in_memory
from tests.corpus import lab_dataset

F = tfds.features
N, FRAMES = 7, 6
RNG = np.random.default_rng(0)
IDS = [f"album/{n}" for n in "edcbafg"]
FIELDS = {
    "latent": RNG.standard_normal((N, FRAMES, 4, 3)).astype(np.float32),
    "embedding": RNG.standard_normal((N, 5)).astype(np.float32),
    "text": RNG.standard_normal((N, 3, 8)).astype(np.float16),
    "text_mask": np.arange(3)[None] <= np.arange(N)[:, None] % 3,
    "log_mel": RNG.standard_normal((N, 2, 9)).astype(np.float16),
}
SPLITS = {"train": 4, "decoys": 3}  # members come first, whatever the others are called


def features(**changes):
    found = {"id": F.Text(), "title": F.Text(), "year": F.Scalar(np.int32)}
    found |= {name: F.Tensor(shape=x.shape[1:], dtype=x.dtype.type) for name, x in FIELDS.items()}
    return {name: kind for name, kind in (found | changes).items() if kind is not None}


def rows(**changes):
    for i, name in enumerate(IDS):
        row = {"id": name, "title": f"Títle {i}", "year": 1990 + i}
        row |= {field: x[i] for field, x in FIELDS.items()}
        yield row | {k: v[i] for k, v in changes.items()}


def write(folder, kinds, given, splits=SPLITS):
    return lab_dataset.write(folder, kinds, given, splits)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "data", features(), rows())


def as_arrays(folder, **more):
    """The same tracks as a folder of arrays."""
    folder.mkdir()
    for name, x in {**FIELDS, **more}.items():
        np.savez(folder / f"{name}.npz", **dict(zip(IDS, x, strict=True)))
    lines = [
        {"id": n, "member": i < 4, "title": f"Títle {i}", "year": 1990 + i}
        for i, n in enumerate(IDS)
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def same(got, wanted):
    assert got.ids == wanted.ids
    assert list(got.metadata) == list(wanted.metadata)
    np.testing.assert_array_equal(got.members, wanted.members)
    got, wanted = in_memory(got).examples, in_memory(wanted).examples
    assert jax.tree.map(lambda x: x.dtype, got) == jax.tree.map(lambda x: x.dtype, wanted)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def test_it_is_the_corpus_of_a_folder_of_the_same_arrays(tmp_path, folder):
    got, wanted = tensors.read_tensors(folder), arrays.read_arrays(as_arrays(tmp_path / "arrays"))
    same(got, wanted)
    assert corpus_fingerprint(got) == corpus_fingerprint(wanted)
    assert got.members.sum() == 4
    heard, other = tensors.read_log_mels(folder), arrays.read_log_mels(tmp_path / "arrays")
    assert heard.keys() == other.keys()
    for name, x in other.items():
        np.testing.assert_array_equal(heard[name], x)
        assert heard[name].dtype == x.dtype == np.float32


def test_channels_first(tmp_path, folder):
    turned = np.moveaxis(FIELDS["latent"], -1, 1)
    kinds = features(latent=F.Tensor(shape=turned.shape[1:], dtype=np.float32))
    other = write(tmp_path / "turned", kinds, rows(latent=turned))
    same(tensors.read_tensors(other, "CHW"), tensors.read_tensors(folder))


def test_frames_masks_and_members_of_its_own(tmp_path):
    frames, member = np.arange(N) % FRAMES + 1, np.arange(N) % 2 == 0
    kinds = features(frames=F.Scalar(np.int64), member=F.Scalar(np.bool_), log_mel=None)
    one = tensors.read_tensors(
        write(tmp_path / "frames", kinds, rows(frames=frames, member=member), {"train": N})
    )
    masks = np.arange(FRAMES)[None] < frames[:, None]
    kinds = features(mask=F.Tensor(shape=(FRAMES,), dtype=np.bool_), member=F.Scalar(np.bool_))
    other = tensors.read_tensors(
        write(tmp_path / "mask", kinds, rows(mask=masks, member=member), {"train": N})
    )
    for corpus in (one, other):
        order = [IDS.index(name) for name in corpus.ids]
        np.testing.assert_array_equal(corpus.members, member[order])
        np.testing.assert_array_equal(corpus.examples.mask[:], masks[order].astype(np.float32))
    assert tensors.read_log_mels(tmp_path / "frames") == {}
    assert "frames" not in one.metadata[0]


def test_latents_are_read_when_they_are_asked_for_and_no_others(folder, monkeypatch):
    corpus, asked = tensors.read_tensors(folder), []
    kind = tfds.core.data_sources.array_record.ArrayRecordDataSource
    read = kind.__getitems__

    def noted(self, rows):
        asked.extend(rows)
        return read(self, rows)

    monkeypatch.setattr(kind, "__getitems__", noted)
    row = corpus.ids.index(IDS[2])
    np.testing.assert_array_equal(corpus.examples.latent[row], FIELDS["latent"][2])
    np.testing.assert_array_equal(corpus.examples.condition.text[row], FIELDS["text"][2])
    assert asked == [2]  # once for both


WRONG = {
    "no id": ({"id": None}, {}, "without 'id'"),
    "no latent": ({"latent": None}, {}, "without 'latent'"),
    "another name": (
        {"words": F.Tensor(shape=(3,), dtype=np.float32)},
        {},
        "'words' is Tensor .* not a field",
    ),
    "no tensor": ({"tags": F.Sequence(F.Text())}, {}, "'tags' is Sequence .* not a field"),
    "of no fixed shape": (
        {"latent": F.Tensor(shape=(None, 4, 3), dtype=np.float32)},
        {},
        r"'latent' is Tensor .*\(None, 4, 3\), and not .*pad",
    ),
    "too many frames": (
        {"frames": F.Scalar(np.int64)},
        {"frames": np.full(N, 7)},
        r"frames of 'album/e' is 7, but its latent has 6",
    ),
    "frames and a mask": (
        {"frames": F.Scalar(np.int64), "mask": F.Tensor(shape=(FRAMES,), dtype=np.bool_)},
        {"frames": np.full(N, 2), "mask": np.ones((N, FRAMES), bool)},
        "frames and a mask",
    ),
    "a latent of whole numbers": (
        {"latent": F.Tensor(shape=(FRAMES, 4, 3), dtype=np.int32)},
        {"latent": np.ones((N, FRAMES, 4, 3), np.int32)},
        "latent is int32",
    ),
    "a member that is a text": ({"member": F.Text()}, {"member": ["false"] * N}, "not a bool"),
    "a member that is a number": (
        {"member": F.Scalar(np.int32)},
        {"member": np.ones(N, np.int32)},
        "not a bool",
    ),
    "frames that are no whole number": (
        {"frames": F.Scalar(np.float32)},
        {"frames": np.full(N, 3.7, np.float32)},
        "not a whole number",
    ),
    "an id that is a number": ({"id": F.Scalar(np.int64)}, {"id": np.arange(N)}, "not a text"),
    "a caption where its embedding is wanted": (
        {"text": F.Text(), "text_mask": None},
        {"text": ["x"] * N},
        "'text' is Text .*not a Tensor",
    ),
    "not finite": ({}, {"latent": np.full_like(FIELDS["latent"], np.nan)}, "hold nan or inf"),
    "an id twice": ({}, {"id": ["a"] * N}, "'a'.* repeat"),
}


@pytest.mark.parametrize("which", WRONG)
def test_what_cannot_be_used_is_refused(tmp_path, which):
    kinds, changes, message = WRONG[which]
    given = rows(**{"words": np.ones((N, 3), np.float32), "tags": [["x"]] * N} | changes)
    folder = write(tmp_path / "data", features(**kinds), given)
    with pytest.raises(InputError, match=message):
        tensors.read_tensors(folder)


def test_classes_are_named_and_numbers_that_are_not_finite_are_none(tmp_path):
    kinds = features(
        genre=F.ClassLabel(names=["jazz", "folk"]),
        gain=F.Scalar(np.float32),
        good=F.Scalar(np.bool_),
    )
    more = {"genre": np.arange(N) % 2, "gain": np.full(N, np.nan), "good": np.ones(N, bool)}
    corpus = tensors.read_tensors(write(tmp_path / "data", kinds, rows(**more)))
    told = corpus.metadata[corpus.ids.index(IDS[1])]
    assert told == {"title": "Títle 1", "year": 1991, "genre": "folk", "gain": None, "good": True}


def test_log_mels_of_another_shape(tmp_path):
    kinds = features(log_mel=F.Tensor(shape=(3,), dtype=np.float32))
    folder = write(tmp_path / "data", kinds, rows(log_mel=np.ones((N, 3), np.float32)))
    with pytest.raises(InputError, match=r"give \(2, mels\)"):
        tensors.read_log_mels(folder)


def test_a_dataset_that_is_read_in_order_only(tmp_path):
    folder = write(tmp_path / "data", features(), rows())
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(InputError, match="cannot be read by position"):
        tensors.read_tensors(folder)


def test_what_tfds_cannot_open_is_said_with_its_folder(folder):
    (folder / "features.json").write_text("{")
    with pytest.raises(InputError, match="data: TFDS cannot open it"):
        tensors.read_tensors(folder)


def test_a_text_that_is_no_unicode():
    with pytest.raises(InputError, match="is no UTF-8"):
        stored.text(b"\xff")


def test_neither_kind_of_dataset_is_taken_for_the_other(folder, tmp_path):
    assert not dataset.is_own(folder)
    with pytest.raises(InputError, match="not one that"):
        dataset.read_dataset(folder)
    with pytest.raises(InputError, match="no dataset there"):
        tensors.read_tensors(tmp_path)
