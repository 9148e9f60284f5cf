"""The Fisher information of a corpus: what it is made of, and that no kill changes it."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import artifact, devices, examples, keys
from tda_jax.attribution import fisher, information, prepare
from tda_jax.attribution.contract import Terms, split_group
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.errors import InputError
from tests.attribution import tiny

SETTINGS = Settings(100, "attention", fisher_draws=3, query_draws=16, blocks=4)
COMPUTE = Compute(devices.local_devices(1), 4, 4, 2, chunk=2)
SOURCE = {"of": "a test"}


class Stop(Exception):
    pass


def fisher_of(path, model=None, corpus=None, settings=SETTINGS, progress=prepare.silent):
    model = tiny.model(dtype=np.float32) if model is None else model
    corpus = tiny.corpus(7, dtype=np.float32) if corpus is None else corpus
    return information.fisher_information(model, corpus, settings, COMPUTE, path, SOURCE, progress)


def test_a_sum_that_was_cut_off_goes_on_from_its_saved_part(tmp_path, monkeypatch):
    monkeypatch.setattr(information, "_LEAST", 2)
    monkeypatch.setattr(information, "_WAIT", 0.0)
    wanted, notes = fisher_of(tmp_path / "whole.safetensors")

    def stop(stage, done, total):
        if done == 6:
            raise Stop

    path = tmp_path / "cut.safetensors"
    with pytest.raises(Stop):
        fisher_of(path, progress=stop)
    assert not path.exists()
    seen = []
    got, again = fisher_of(path, progress=lambda *x: seen.append(x[1]))
    assert seen == [6, 7]  # what was kept, then only what was missing
    assert again == notes
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)
    assert not list(tmp_path.glob("*.parts"))


def test_a_sum_that_was_cut_off_knows_no_order_of_the_corpus(tmp_path, monkeypatch):
    corpus = tiny.corpus(7, dtype=np.float32)
    monkeypatch.setattr(information, "_LEAST", 2)
    monkeypatch.setattr(information, "_WAIT", 0.0)
    wanted, _ = fisher_of(tmp_path / "whole.safetensors")

    def stop(stage, done, total):
        if done == 6:
            raise Stop

    path = tmp_path / "cut.safetensors"
    with pytest.raises(Stop):
        fisher_of(path, progress=stop)
    got, _ = fisher_of(path, corpus=examples.take(corpus, np.arange(7)[::-1]))
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)


def test_a_part_of_a_track_that_is_asked_about_as_a_query_counts_whole_in_the_fisher(tmp_path):
    corpus = tiny.corpus(3, dtype=np.float32)
    marked = corpus._replace(metadata=({"query_frames": [0, 1]}, *corpus.metadata[1:]))
    settings = SETTINGS._replace(mask_unlearn=False)
    wanted, _ = fisher_of(tmp_path / "a.safetensors", corpus=corpus, settings=settings)
    got, _ = fisher_of(tmp_path / "b.safetensors", corpus=marked, settings=settings)
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)


def test_decoys_are_no_part_of_the_fisher_information(tmp_path):
    corpus = tiny.corpus(6, dtype=np.float32)
    members = np.array([True, True, True, True, False, False])
    marked = corpus._replace(members=members)
    got, notes = fisher_of(tmp_path / "a.safetensors", corpus=marked)
    wanted, _ = fisher_of(tmp_path / "b.safetensors", corpus=examples.take(corpus, range(4)))
    assert notes["tracks"] == 4
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)


def test_a_subset_is_random_and_stated(tmp_path):
    some = SETTINGS._replace(fisher_tracks=3)
    got, notes = fisher_of(tmp_path / "a.safetensors", settings=some)
    whole, _ = fisher_of(tmp_path / "b.safetensors")
    assert (notes["tracks"], notes["draws"]) == (3, 9)
    assert any(not np.array_equal(got[name], whole[name]) for name in whole)


def poisoned(bad, kind):
    """A model that fails on the tracks whose first text element is `bad`."""

    def terms(params, example, t, noise):
        good = tiny.terms(params, example, t, noise)
        hit = example.condition[0, 0] == bad
        if kind == "nan":
            return good._replace(prediction=jnp.where(hit, jnp.nan, good.prediction))
        return Terms(jnp.where(hit, 0.0, good.prediction), good.target, good.mask)

    return tiny.model(dtype=np.float32)._replace(terms=terms)


@pytest.mark.parametrize(
    ("kind", "reason"), [("nan", "non-finite loss or gradient"), ("zero", "all-zero gradient")]
)
def test_an_unusable_draw_is_reported_and_never_averaged_in(tmp_path, kind, reason):
    corpus = tiny.corpus(5, dtype=np.float32)
    bad = corpus.examples.condition[3, 0, 0]
    got, notes = fisher_of(tmp_path / "a.safetensors", poisoned(bad, kind), corpus)
    assert notes["left_out"] == [[corpus.ids[3], d, reason] for d in range(3)]
    assert notes["draws"] == 4 * 3
    rest = examples.take(corpus, [0, 1, 2, 4])
    wanted, _ = fisher_of(tmp_path / "b.safetensors", corpus=rest)
    for name, array in wanted.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5)


def test_one_unusable_draw_of_a_track_leaves_its_others_in(tmp_path):
    corpus = tiny.corpus(3, dtype=np.float32)
    (late,) = (
        tiny.draw(SETTINGS.seed, keys.Domain.FISHER, corpus.ids[1], d, 3, np.float32)[0]
        for d in (2,)
    )

    def terms(params, example, t, noise):
        good = tiny.terms(params, example, t, noise)
        hit = (example.condition[0, 0] == corpus.examples.condition[1, 0, 0]) & (t == late)
        return good._replace(prediction=jnp.where(hit, jnp.nan, good.prediction))

    model = tiny.model(dtype=np.float32)
    got, notes = fisher_of(tmp_path / "a.safetensors", model._replace(terms=terms), corpus)
    assert notes["left_out"] == [[corpus.ids[1], 2, "non-finite loss or gradient"]]
    assert notes["draws"] == 8
    whole, _ = fisher_of(tmp_path / "b.safetensors", model, corpus)
    for name, array in got.items():
        assert np.isfinite(array).all()
        assert (8 * array <= 9 * whole[name] * (1 + 1e-5)).all()  # one square less in each sum
        assert (8 * array < 9 * whole[name] * (1 - 1e-5)).any()


def test_no_usable_draw_at_all_is_refused(tmp_path):
    model = tiny.model(dtype=np.float32)

    def terms(params, example, t, noise):
        return tiny.terms(params, example, t, noise)._replace(prediction=jnp.zeros_like(noise))

    with pytest.raises(InputError, match="no draw gave a usable gradient"):
        fisher_of(tmp_path / "a.safetensors", model._replace(terms=terms))


def test_masked_frames_count_only_if_asked_for(tmp_path):
    """M_U: with the mask, what lies in the padding changes nothing in F; without, it does."""
    corpus = tiny.corpus(3, dtype=np.float32)
    latent = corpus.examples.latent.copy()
    padding = corpus.examples.mask == 0
    latent[padding] += 1.0
    other = corpus._replace(examples=corpus.examples._replace(latent=latent))
    for masked in (True, False):
        s = SETTINGS._replace(mask_unlearn=masked)
        one, _ = fisher_of(tmp_path / f"a{masked}.safetensors", corpus=corpus, settings=s)
        two, _ = fisher_of(tmp_path / f"b{masked}.safetensors", corpus=other, settings=s)
        same = [np.array_equal(one[name], two[name]) for name in one]
        assert all(same) if masked else not any(same)


def test_artifacts_of_something_else_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    fisher_of(path)
    with pytest.raises(InputError, match=r"of is .a test. there and .another. here"):
        information.fisher_information(
            tiny.model(dtype=np.float32),
            tiny.corpus(7, dtype=np.float32),
            SETTINGS,
            COMPUTE,
            path,
            {"of": "another"},
        )
    json.dumps(artifact.describe(path)[0])


def test_fisher_is_no_square_of_a_mean():
    """Two opposite gradients: their mean is 0, the mean of their squares is not."""

    def terms(params, example, t, noise):
        prediction = jnp.full(example.latent.shape, params["x"]["w"])
        return Terms(prediction, example.latent, example.mask)

    latents = np.ones((2, 2, 1, 1), np.float32) * np.array([1, -1], np.float32)[:, None, None, None]
    corpus = examples.corpus_of(["p", "q"], latents)
    model = tiny.model()._replace(
        terms=terms, params={"x": {"w": np.float32(0)}}, groups={"attention": ".*"}
    )
    made = fisher.make_fisher(model, 2, 0, 4, COMPUTE.devices)
    moved, rest = split_group(model, "attention")
    total = fisher.add(
        made,
        fisher.start(made, moved),
        fisher.place(made, moved, rest),
        corpus.examples,
        corpus.ids,
    )
    assert fisher.information(total)["x/w"] == 4.0


def test_what_a_kill_left_of_a_part_is_no_hindrance(tmp_path, monkeypatch):
    wanted, _ = fisher_of(tmp_path / "whole.safetensors")
    folder = tmp_path / "cut.parts"
    folder.mkdir()
    (folder / "00000.safetensors.1234.part").write_bytes(b"half")
    got, _ = fisher_of(tmp_path / "cut.safetensors")
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)
    assert not folder.exists()


def test_a_block_that_stands_in_two_parts_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(information, "_LEAST", 2)
    monkeypatch.setattr(information, "_WAIT", 0.0)

    def stop(stage, done, total):
        if done == 4:
            raise Stop

    path = tmp_path / "cut.safetensors"
    with pytest.raises(Stop):
        fisher_of(path, progress=stop)
    folder = tmp_path / "cut.parts"
    shutil.copy(folder / "00000.safetensors", folder / "00001.safetensors")
    with pytest.raises(InputError, match="do not hold each of 4 blocks once"):
        fisher_of(path)
    assert not path.exists()
