"""The Fisher information of units of tracks, against a plain float64 loop over the tracks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import devices, examples, keys
from tda_jax.attribution import fisher, information, prepare
from tda_jax.attribution.contract import split_group
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.errors import InputError
from tests.attribution import tiny
from tests.attribution.test_float64 import close, one_gradient

DRAWS = 3
SETTINGS = Settings(100, "attention", fisher_draws=DRAWS, seed=5)
COMPUTE = Compute(devices.local_devices(1), fisher_batch=2, chunk=2)
SOURCE = {"of": "a test"}
# By row, its track and where its window begins: "z" has three windows, "b" one of two captions,
# "track 3" is a whole track; "d" is a decoy of two windows.
UNITS = [("z", 0.0), ("b", 4.0), ("z", 8.0), None, ("d", 0.0), ("z", 4.0), ("d", 4.0), ("b", 4.0)]
MEMBERS = {"b": [1, 7], "track 3": [3], "z": [0, 2, 5]}  # the rows of each


class Stop(Exception):
    pass


def corpus(dtype=np.float32, units=UNITS):
    made = tiny.corpus(8, dtype=dtype)
    made.examples.latent[7] = made.examples.latent[1]  # two captions of one window
    metadata = [{} if u is None else {"track": u[0], "window_start": u[1]} for u in units]
    members = np.array([u is None or u[0][0] != "d" for u in units])
    return made._replace(members=members, metadata=tuple(metadata))


def fisher_of(path, dtype=np.float32, compute=COMPUTE, settings=SETTINGS, **given):
    model = given.get("model", tiny.model(dtype=dtype))
    units, progress = given.get("units", corpus(dtype)), given.get("progress", prepare.silent)
    return information.fisher_information(model, units, settings, compute, path, SOURCE, progress)


@pytest.fixture(scope="module")
def squares():
    """By (row, draw), g² of that draw alone, float64."""
    data, found = corpus(np.float64), {}
    for i in (row for rows in MEMBERS.values() for row in rows):
        for d in range(DRAWS):
            t, noise = tiny.draw(SETTINGS.seed, keys.Domain.FISHER, data.ids[i], d, DRAWS)
            found[i, d] = jax.tree.map(np.square, one_gradient(tiny.row(data, i), t, noise))
    return found


def by_loop(squares, tracks=tuple(MEMBERS)):
    """The mean over tracks of the mean over the units and draws of each."""
    total = None
    for track in tracks:
        each = [squares[i, d] for i in MEMBERS[track] for d in range(DRAWS)]
        mean = jax.tree.map(lambda *x: sum(x) / len(x), *each)
        total = mean if total is None else jax.tree.map(np.add, total, mean)
    return jax.tree.map(lambda x: x / len(tracks), total)


def same(got, wanted, dtype=np.float32):
    assert got.keys() == wanted.keys()
    for path in wanted:
        close(got[path], wanted[path], dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_tracks_count_alike_whatever_their_units(tmp_path, squares, dtype):
    with jax.enable_x64(dtype is np.float64):
        got, notes = fisher_of(tmp_path / "f.safetensors", dtype)
    same(got, by_loop(squares), dtype)
    assert notes == {"tracks": 3, "units": 6, "draws": 6 * DRAWS, "left_out": []}
    rows_alike = jax.tree.map(lambda *x: sum(x) / len(x), *squares.values())
    for path, leaf in by_loop(squares).items():  # the two definitions are far apart here
        assert np.abs(leaf - rows_alike[path]).max() > 0.05 * np.abs(leaf).max()


@pytest.mark.parametrize(("batch", "chunk"), [(1, 1), (1, 6), (3, 4), (5, 2), (7, 5), (40, 8)])
def test_neither_batch_nor_chunk_changes_it(tmp_path, squares, batch, chunk):
    compute = COMPUTE._replace(fisher_batch=batch, chunk=chunk)
    got, _ = fisher_of(tmp_path / "f.safetensors", compute=compute)
    same(got, by_loop(squares))


@pytest.mark.parametrize("order", [[7, 6, 5, 4, 3, 2, 1, 0], [3, 0, 7, 1, 6, 2, 5, 4]])
def test_the_order_of_the_corpus_leaves_no_trace(tmp_path, order):
    wanted, _ = fisher_of(tmp_path / "a.safetensors")
    got, _ = fisher_of(tmp_path / "b.safetensors", units=examples.take(corpus(), order))
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(got[path], leaf)


@pytest.mark.parametrize("stop", [2, 4])
def test_a_sum_that_was_cut_off_goes_on_to_the_same_bits(tmp_path, monkeypatch, stop):
    compute = COMPUTE._replace(chunk=1)
    monkeypatch.setattr(information, "_LEAST", 2)
    monkeypatch.setattr(information, "_WAIT", 0.0)
    wanted, notes = fisher_of(tmp_path / "whole.safetensors", compute=compute)

    def halt(stage, done, total):
        assert total == 6
        if done == stop:
            raise Stop

    path, seen = tmp_path / "cut.safetensors", []
    with pytest.raises(Stop):
        fisher_of(path, compute=compute, progress=halt)
    go_on = {"compute": compute, "progress": lambda *x: seen.append(x[1])}
    got, again = fisher_of(path, **go_on)
    assert seen[0] == stop
    assert again == notes
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(got[name], leaf)


def test_a_saved_part_of_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(information, "_LEAST", 2)
    monkeypatch.setattr(information, "_WAIT", 0.0)

    def halt(stage, done, total):
        if done == 4:
            raise Stop

    path = tmp_path / "f.safetensors"
    with pytest.raises(Stop):
        fisher_of(path, progress=halt)
    monkeypatch.setitem(SOURCE, "code", "of before")
    with pytest.raises(InputError, match=r"00000\.safetensors: made from something else: code"):
        fisher_of(path)


def test_the_weights_of_draws_left_out_are_left_out(tmp_path, squares):
    """All draws of a window of "z" and one draw of a caption of "b" are unusable."""
    data = corpus()
    late, _ = tiny.draw(SETTINGS.seed, keys.Domain.FISHER, data.ids[7], 2, DRAWS)
    first = data.examples.condition[:, 0, 0]

    def terms(params, example, t, noise):
        good = tiny.terms(params, example, t, noise)
        own = example.condition[0, 0]
        hit = (own == first[2]) | ((own == first[7]) & (t == late))
        return good._replace(prediction=jnp.where(hit, jnp.nan, good.prediction))

    model = tiny.model(dtype=np.float32)._replace(terms=terms)
    got, notes = fisher_of(tmp_path / "f.safetensors", model=model)
    left_out = [(2, 0), (2, 1), (2, 2), (7, 2)]
    reason = "non-finite loss or gradient"
    assert notes["left_out"] == [[data.ids[i], d, reason] for i, d in left_out]
    assert notes["draws"] == 6 * DRAWS - 4
    weight = {i: 1 / len(rows) for rows in MEMBERS.values() for i in rows}
    kept = {pair: s for pair, s in squares.items() if pair not in left_out}
    total = sum(weight[i] for i, _ in kept)
    assert total == pytest.approx(9 - 1 - 0.5)
    each = [jax.tree.map(lambda x, i=i: weight[i] * x / total, s) for (i, _), s in kept.items()]
    same(got, jax.tree.map(lambda *x: sum(x), *each))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_subset_is_of_tracks_with_all_their_units(tmp_path, count, seed):
    settings = SETTINGS._replace(fisher_tracks=count, seed=seed)
    names = keys.subset(sorted(MEMBERS), count, seed)
    chosen = information.fisher_rows(corpus(), settings)
    assert chosen.rows.tolist() == sorted(i for name in names for i in MEMBERS[name])
    assert chosen.tracks == count
    sizes = {i: len(rows) for rows in MEMBERS.values() for i in rows}
    if set(names) == {"track 3"}:
        assert chosen.weights is None
    else:
        np.testing.assert_array_equal(chosen.weights, [1 / sizes[i] for i in chosen.rows])


def test_the_information_of_a_subset_is_that_of_its_tracks(tmp_path, squares):
    settings = SETTINGS._replace(fisher_tracks=2)
    names = keys.subset(sorted(MEMBERS), 2, settings.seed)
    got, notes = fisher_of(tmp_path / "f.safetensors", settings=settings)
    same(got, by_loop(squares, names))
    assert notes["tracks"] == 2
    assert notes["units"] == sum(len(MEMBERS[name]) for name in names)
    with pytest.raises(InputError, match="a subset of 4 of 3 tracks"):
        information.fisher_rows(corpus(), settings._replace(fisher_tracks=4))


@pytest.mark.parametrize("named", [False, True])
def test_whole_tracks_have_no_weights_and_are_picked_by_their_ids(named):
    """So that their program, and each bit that it gives, is the one without weights."""
    names = [f"piece {9 - i}" for i in range(8)]  # in another order than the rows
    whole = corpus(units=[(name, 0.0) if named else None for name in names])
    every = information.fisher_rows(whole, SETTINGS)
    assert (every.rows.tolist(), every.weights, every.tracks) == (list(range(8)), None, 8)
    assert set(information.fisher_tracks_print(whole)) == ({"tracks"} if named else set())
    some = information.fisher_rows(whole, SETTINGS._replace(fisher_tracks=3))
    ids = names if named else whole.ids
    assert {ids[i] for i in some.rows} == set(keys.subset(ids, 3, SETTINGS.seed))
    assert (some.weights, some.tracks) == (None, 3)


def test_the_print_of_tracks_is_of_which_member_is_of_which():
    one = information.fisher_tracks_print(corpus())
    assert one.keys() == {"tracks"}
    assert information.fisher_tracks_print(examples.take(corpus(), [5, 2, 0, 7, 1, 6, 4, 3])) == one
    alone = [u if u != ("z", 8.0) else ("y", 8.0) for u in UNITS]
    assert information.fisher_tracks_print(corpus(units=alone)) != one
    decoys = [u if u != ("d", 4.0) else ("d too", 4.0) for u in UNITS]
    assert information.fisher_tracks_print(corpus(units=decoys)) == one


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.nan]])
def test_weights_that_are_none_are_refused(weights):
    model = tiny.model(dtype=np.float32)
    made = fisher.make_fisher(model, DRAWS, 0, 2, COMPUTE.devices)
    moved, rest = split_group(model, "attention")
    two = tiny.corpus(2, dtype=np.float32)
    nothing, placed = fisher.start(made, moved), fisher.place(made, moved, rest)
    with pytest.raises(InputError, match="of 2 rows; give each a number above 0"):
        fisher.add(made, nothing, placed, two.examples, two.ids, np.array(weights))
