"""Audio files to the posteriors of a VAE and to rows, against each step done by hand."""

import jax
import numpy as np
import pytest
import soundfile

from tda_jax import devices
from tda_jax.audio.mel import MelSettings, log_mel, prepare
from tda_jax.corpus import chunking, dataset, encoding, packing
from tda_jax.corpus.chunking import Cut, File
from tda_jax.corpus.folder import Track
from tda_jax.corpus.shares import tell, told
from tda_jax.errors import InputError
from tda_jax.hosts import ALONE, Hosts
from tda_jax.models.denoiser import Condition
from tda_jax.models.families import FAMILIES, initialise
from tda_jax.models.pretrained import Component, Record
from tests.models import cases

CASE = cases.SMALL["vae_mel"]
MEL = MelSettings()
CUT = Cut(0.64)
USED = devices.local_devices(1)


def vae(case=CASE):
    family = FAMILIES[case.class_name]
    config = family.read_config(case.config, "test")
    record = Record(case.class_name, "test", "raw", 0, "a vae", ())
    return Component(family.build(config), initialise(family, config, 0), {}, case.config, record)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of one window and more, one shorter than a window, one that is no audio."""
    place, rng = tmp_path_factory.mktemp("audio"), np.random.default_rng(0)
    for name, seconds in (("a", 0.64), ("b", 0.3), ("c", 1.5), ("d", 0.7)):
        wave = 0.3 * rng.standard_normal(round(seconds * MEL.rate))
        soundfile.write(place / f"{name}.wav", wave, MEL.rate, subtype="FLOAT")
    (place / "bad.wav").write_text("no audio")
    return place


def files(folder, names="abcd"):
    return [File(name, folder / f"{name}.wav") for name in names]


def encode(*given, **more):
    return [encoding.read_chunk(chunk) for chunk in chunks_of(*given, **more)]


def chunks_of(folder, where, names="abcd", cut=CUT, chunk=2, batch=2, seen=None, among=ALONE):
    return list(
        encoding.encode(
            [File(n, folder / f"{n}.wav") for n in names],
            cut,
            MEL,
            vae(),
            where,
            chunk,
            batch,
            USED,
            lambda *x: None if seen is None else seen.append(x),
            among,
        )
    )


def by_hand(folder, name, start=0.0):
    wave, _ = soundfile.read(folder / f"{name}.wav", dtype="float32")
    first, length = round(start * MEL.rate), round(CUT.seconds * MEL.rate)
    mel = log_mel(prepare(wave[first : first + length], length), MEL)
    made = vae()
    encoded = jax.jit(lambda p, x: made.module.apply({"params": p}, x, method="encode"))
    return jax.tree.map(lambda x: np.asarray(x)[0], encoded(made.params, mel[None, :, :, None]))


def test_a_window_is_what_each_step_gives(folder, tmp_path):
    chunks = encode(folder, tmp_path)
    assert [c.id for c in chunks] == [["a", "b"], ["c", "d"]]
    for chunk in chunks:
        for i, name in enumerate(chunk.id):
            wanted = by_hand(folder, name)
            np.testing.assert_allclose(chunk.mean[i], wanted.mean, rtol=0, atol=1e-5)
            np.testing.assert_allclose(chunk.std[i], wanted.std, rtol=0, atol=1e-5)
            wave, _ = soundfile.read(folder / f"{name}.wav", dtype="float32")
            length = round(CUT.seconds * MEL.rate)
            heard = log_mel(prepare(wave[:length], length), MEL)[: 33 if name == "b" else None]
            by_time = np.stack([heard.mean(axis=0), heard.std(axis=0)])
            np.testing.assert_allclose(chunk.log_mel[i], by_time, rtol=0, atol=1e-4)
    assert chunks[0].mean.shape == (2, 16, 16, 8)
    # 0.3 s are 4,800 samples: the last of them is under the windows of 33 frames.
    assert chunks[0].frames.tolist() == [16, 9]
    assert not chunks[0].start.any()


def test_every_window_of_a_file_is_there_on_demand(folder, tmp_path):
    (chunk,) = encode(folder, tmp_path, cut=Cut(0.64, None, None), chunk=9)
    assert chunk.id == ["a", "b", "c", "c", "d"]  # 0.22 s of c and 0.06 of d are left over
    assert chunk.start.tolist() == [0, 0, 0, pytest.approx(0.64), 0]
    np.testing.assert_allclose(chunk.mean[3], by_hand(folder, "c", 0.64).mean, rtol=0, atol=1e-5)


def test_no_more_windows_are_held_than_memory_may_have(folder, tmp_path, monkeypatch):
    """Files a, b, c and d may have 1, 1, 3 and 2 windows by their length."""
    whole, seen = Cut(0.64, None, None), []
    names = ["a", "bad", "b", "c", "d"]
    (wanted,) = encode(folder, tmp_path / "one", names, cut=whole, chunk=9)
    of_a_window = 4 * MEL.mels * (round(0.64 * MEL.rate) // MEL.hop)
    monkeypatch.setattr(chunking, "_HELD", 3 * of_a_window + 1)
    few = chunks_of(folder, tmp_path / "few", names, cut=whole, chunk=9, seen=seen)
    assert [chunk.ids for chunk in few] == [("a", "b"), ("c",), ("d",)]
    assert [list(chunk.unread) for chunk in few] == [["bad"], [], []]
    assert [done for _, done, _ in seen] == [0, 3, 4, 5]
    got = [encoding.read_chunk(chunk) for chunk in few]
    assert [name for chunk in got for name in chunk.id] == wanted.id
    for name in ("mean", "std", "log_mel", "start", "frames"):
        each = np.concatenate([getattr(chunk, name) for chunk in got])
        np.testing.assert_allclose(each, getattr(wanted, name), rtol=0, atol=1e-5)
    monkeypatch.setattr(chunking, "_HELD", 1)  # of one file there are as many as it has
    each = chunks_of(folder, tmp_path / "one by one", names, cut=whole, chunk=9)
    assert [chunk.ids for chunk in each] == [("a",), ("b",), ("c",), ("d",)]
    (first,) = chunks_of(folder, tmp_path / "first", names, cut=Cut(0.64, None, 1), chunk=9)[:1]
    assert first.ids == ("a",)
    monkeypatch.setattr(chunking, "_HELD", 4 * of_a_window)
    (all_of_them,) = chunks_of(folder, tmp_path / "firsts", names, cut=Cut(0.64, None, 1), chunk=9)
    assert all_of_them.ids == ("a", "b", "c", "d")


@pytest.mark.parametrize(("chunk", "batch"), [(1, 1), (3, 5)])
def test_neither_chunks_nor_batches_change_a_latent(folder, tmp_path, chunk, batch):
    usual, other = (
        encode(folder, tmp_path / "a"),
        encode(folder, tmp_path / "b", "abcd", CUT, chunk, batch),
    )
    one, two = (np.concatenate([c.mean for c in chunks]) for chunks in (usual, other))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-5)


def test_what_is_there_is_not_encoded_again(folder, tmp_path, monkeypatch):
    first = encode(folder, tmp_path)
    monkeypatch.setattr(encoding, "spectrograms", None)
    again = encode(folder, tmp_path)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.mean, two.mean)


def test_a_file_that_changed_is_encoded_again(folder, tmp_path):
    other = tmp_path / "audio"
    other.mkdir()
    for name in "ab":
        wave, _ = soundfile.read(folder / f"{name}.wav")
        soundfile.write(other / f"{name}.wav", wave, MEL.rate, subtype="FLOAT")
    (first,) = encode(other, tmp_path / "x", "ab")
    soundfile.write(other / "b.wav", wave[::-1], MEL.rate, subtype="FLOAT")
    (second,) = encode(other, tmp_path / "x", "ab")
    np.testing.assert_array_equal(first.mean[0], second.mean[0])
    assert np.abs(first.mean[1] - second.mean[1]).max() > 1e-3


def test_a_file_that_cannot_be_used_is_skipped_with_its_reason(folder, tmp_path):
    chunks = encode(folder, tmp_path, ["a", "bad", "b"])
    assert [c.id for c in chunks] == [["a"], ["b"]]
    assert list(chunks[0].skipped) == ["bad"]
    assert "bad.wav" in chunks[0].skipped["bad"]
    (alone,) = encode(folder, tmp_path, ["bad"])
    assert alone.mean.shape == (0, 16, 16, 8)
    assert encode(folder, tmp_path, ["bad"])[0].skipped == alone.skipped  # as it was kept


def test_windows_that_the_vae_does_not_divide_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"66 frames of 64 mels.*multiple of 0.04 s"):
        encode(folder, tmp_path, cut=Cut(0.66))
    images = vae(cases.SMALL["vae_image"])
    with pytest.raises(InputError, match="3 channels in"):
        list(encoding.encode(files(folder), CUT, MEL, images, tmp_path, 2, 2, USED, print))


def conditions(captions):
    assert captions == sorted(set(captions))
    return Condition(None, np.stack([np.full((3, 2), len(c), np.float32) for c in captions]))


def test_rows_have_the_networks_scaling_and_their_captions(folder, tmp_path):
    tracks = [
        Track("a", "a.wav", folder / "a.wav", ("long one", "x"), "T", None, "train", {"key": "D"}),
        Track("c", "c.wav", folder / "c.wav", ("x",), None, "Ann", "test", {}),
        Track("bad", "bad.wav", folder / "bad.wav", ("yy",), None, None, "train", {}),
    ]
    chunks = chunks_of(folder, tmp_path, ["a", "c", "bad"], cut=Cut(0.64, None, None))
    config = vae().module.config
    packed = packing.outline(chunks, tracks)
    ids = ["a", "c at 0 s", "c at 0.64 s"]
    assert [w.id for w in packed.windows] == ids
    assert list(packed.skipped) == ["bad"]
    members, decoys = (
        list(packing.rows(chunks, tracks, config, conditions, member)) for member in (True, False)
    )
    (first,) = members
    assert [r.id for r in (first, *decoys)] == ids
    assert [r.track for r in decoys] == ["c", "c"]
    assert [r.member for r in (first, *decoys)] == [True, False, False]
    assert packed.shape == first.mean.shape
    assert [w.frames for w in packed.windows] == [r.frames for r in (first, *decoys)]
    scale = config.scaling_factor
    np.testing.assert_allclose(first.mean, scale * by_hand(folder, "a").mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(first.std, scale * by_hand(folder, "a").std, rtol=1e-5, atol=1e-5)
    assert first.condition.text[:, 0, 0].tolist() == [8, 1]
    assert first.condition.embedding is None
    assert first.metadata == {"key": "D", "title": "T", "file_name": "a.wav"}
    assert decoys[0].metadata == {"artist": "Ann", "file_name": "c.wav"}
    dataset.write_dataset(tmp_path / "data", members, decoys, {"of": "a test"})
    assert dataset.read_dataset(tmp_path / "data").ids == (
        "a caption 1",
        "a caption 2",
        "c at 0 s",
        "c at 0.64 s",
    )


@pytest.mark.parametrize("count", [2, 3])
def test_processes_encode_their_shares_and_leave_what_one_would(folder, tmp_path, count):
    (tmp_path / "one").mkdir()
    alone = chunks_of(folder, tmp_path / "one", chunk=1)
    shares = [
        chunks_of(folder, tmp_path / "all", chunk=1, among=Hosts(i, count)) for i in range(count)
    ]
    assert [c.ids for some in shares for c in some] == [c.ids for c in alone]
    for here, there in zip((c for some in shares for c in some), alone, strict=True):
        np.testing.assert_array_equal(
            encoding.read_chunk(here).mean, encoding.read_chunk(there).mean
        )
    place = shares[0][0].path.parent
    for i, share in enumerate(shares):
        tell(place, Hosts(i, count), share)
    known = told(place, Hosts(0, count))
    assert known == [chunk for share in shares for chunk in share]
    for here, there in zip(known, alone, strict=True):
        assert encoding.read_chunk(here).id == encoding.read_chunk(there).id
    assert not list(place.glob("*.json"))
