import numpy as np
import pytest

from tda_jax import examples, keys
from tda_jax.baselines.contract import Passes
from tda_jax.baselines.gradients import signs
from tda_jax.baselines.trak import DAMPINGS, d_trak, solve, trak
from tda_jax.errors import InputError
from tests.baselines import linear

DRAWS, QUERY_DRAWS = keys.Draws(1, 4), keys.Draws(1, 6)
MEMBERS = np.array([1, 0, 1, 1, 1, 0, 1, 1], bool)
METHODS = {"TRAK": (trak, "loss"), "D-TRAK": (d_trak, "output")}


def scores(method, corpus, queries, batch=4):
    task = linear.task(corpus, batch)
    return method.score(task, method.prepare(task), queries)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dimension", [3, 4, 200])  # fewer, and more, than the 6 members
def test_scores_are_a_product_under_a_dense_inverse(name, dimension):
    make, of = METHODS[name]
    corpus, queries = linear.corpus(members=MEMBERS), linear.corpus(3, 1, "query")
    found = scores(make(DRAWS, QUERY_DRAWS, dimension, (0.01, 1.0)), corpus, queries)
    assert list(found) == [f"{name} all 0.01", f"{name} all 1"]
    root = keys.root(linear.SEED, keys.Domain.PROJECTION)
    matrix = np.asarray(signs(root, np.uint32(0), dimension), float)[:5] / np.sqrt(dimension)
    tracks, asked = (linear.gradients(c, of) @ matrix for c in (corpus, queries))
    phi = tracks[MEMBERS]
    for damping in (0.01, 1.0):
        mean = np.trace(phi.T @ phi) / min(6, dimension)
        inverse = np.linalg.inv(phi.T @ phi + damping * mean * np.eye(dimension))
        wanted = asked @ inverse @ tracks.T
        got = found[f"{name} all {damping:g}"]
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", METHODS)
def test_a_group_has_its_own_parameters_and_names(name):
    make, of = METHODS[name]
    corpus, queries = linear.corpus(members=MEMBERS), linear.corpus(3, 1, "query")
    method = make(DRAWS, QUERY_DRAWS, 7, (0.1,), "transformer")
    found = scores(method, corpus, queries)
    assert method.name == f"{name} transformer"
    assert list(found) == [f"{name} transformer 0.1"]
    root = keys.root(linear.SEED, keys.Domain.PROJECTION)
    matrix = np.asarray(signs(root, np.uint32(0), 7), float)[:3] / np.sqrt(7)
    tracks, asked = (linear.gradients(c, of)[:, 2:] @ matrix for c in (corpus, queries))
    phi = tracks[MEMBERS]
    strength = 0.1 * np.square(phi).sum() / 6
    wanted = asked @ np.linalg.inv(phi.T @ phi + strength * np.eye(7)) @ tracks.T
    got = found[f"{name} transformer 0.1"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("decay", [0, 2])
def test_the_least_damping_loses_little_to_rounding(decay):
    """80 members in 300 columns; singular values fall by `decay` powers of their rank."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(k, 80)))[0] for k in (80, 300))
    phi = (left * np.arange(1.0, 81) ** -decay) @ right.T
    scale = np.linalg.norm(phi) / np.sqrt(80 * 300)
    decoys, asked = scale * rng.normal(size=(2, 9, 300))
    rows, members = np.concatenate([phi, decoys]), np.arange(89) < 80
    assert min(DAMPINGS) == 1e-6
    strength = 1e-6 * np.square(phi).sum() / 80
    wanted = asked @ np.linalg.solve(phi.T @ phi + strength * np.eye(300), rows.T)
    got = asked @ solve(rows, members, 1e-6)
    for kind in (members, ~members):
        tolerance = 1e-7 * np.abs(wanted[:, kind]).max()
        np.testing.assert_allclose(got[:, kind], wanted[:, kind], rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(7, 4), (7, 30)])
def test_both_systems_give_the_inverse_in_float64(shape):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=shape) * np.array([1.0, 1e-2, 1, 1, 1, 1, 10])[:, None]
    members = np.array([1, 1, 0, 1, 1, 1, 1], bool)
    phi = rows[members]
    for damping in (1e-3, 1.0):
        strength = damping * np.square(phi).sum() / min(phi.shape)
        dense = phi.T @ phi + strength * np.eye(shape[1])
        np.testing.assert_allclose(
            solve(rows, members, damping), np.linalg.inv(dense) @ rows.T, rtol=1e-8, atol=1e-12
        )


def test_a_decoy_changes_no_other_score():
    corpus, queries = linear.corpus(members=MEMBERS), linear.corpus(2, 1, "query")
    method = trak(DRAWS, QUERY_DRAWS, 64, (0.1,))
    wanted = scores(method, corpus, queries)["TRAK all 0.1"]
    other = linear.corpus(members=MEMBERS)
    other.examples.condition[1] *= 3
    found = scores(method, other, queries)["TRAK all 0.1"]
    kept = np.arange(linear.N) != 1
    np.testing.assert_allclose(found[:, kept], wanted[:, kept], rtol=1e-5, atol=1e-7)
    assert (found[:, 1] != wanted[:, 1]).all()


@pytest.mark.parametrize("name", METHODS)
def test_a_duplicate_of_a_member_supports_itself_most(name):
    """Under the inverse at little damping, the members' products are nearly the identity."""
    make, _ = METHODS[name]
    corpus = linear.corpus(5)
    for i in range(5):
        copy = examples.take(corpus, [i])._replace(ids=("a copy",))
        found = scores(make(DRAWS, QUERY_DRAWS, 256, (1e-3,)), corpus, copy)
        assert found[f"{name} all 0.001"][0].argmax() == i


def test_passes_and_refusals():
    corpus = linear.corpus()
    assert trak(DRAWS, QUERY_DRAWS).passes(linear.task(corpus)) == Passes(3 * 4 * 8, 3 * 6)
    for dampings in ((), (0.0,), (1.0, -1.0), (float("nan"),)):
        with pytest.raises(InputError, match="each above 0"):
            trak(dampings=dampings)
    nobody = linear.corpus(members=np.zeros(8, bool))
    with pytest.raises(InputError, match="no member"):
        trak(DRAWS, QUERY_DRAWS, 8).prepare(linear.task(nobody))
    still = linear.corpus(members=MEMBERS)
    still.examples.condition[MEMBERS] = 0.0
    with pytest.raises(InputError, match="of the members are zero for all 6"):
        trak(DRAWS, QUERY_DRAWS, 8).prepare(linear.task(still))
    with pytest.raises(InputError, match=r"no parameter group 'c'; choose one of \['all', 'tra"):
        trak(DRAWS, QUERY_DRAWS, 8, group="c").prepare(linear.task(corpus))
