import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tda_jax.errors import InputError
from tda_jax.evaluation.subsets import kept, random_removals, without

IDS = [f"track {i}" for i in range(20)]


@given(st.permutations(IDS), st.integers(0, 5), st.integers(1, 6))
def test_sets_follow_from_ids_and_seed_alone(ids, seed, count):
    sets = random_removals(ids, count, 0.25, seed)
    assert sets == random_removals(IDS, 8, 0.25, seed)[:count]
    assert all(len(set(s)) == 5 and set(s) <= set(IDS) for s in sets)


def test_sets_differ_and_each_track_is_in_many():
    ids = [f"track {i}" for i in range(60)]
    sets = random_removals(ids, 400, 0.5, 0) + random_removals(ids, 400, 0.5, 1)
    assert len(set(sets)) == len(sets)
    share = kept(ids, sets).mean(axis=0)
    assert np.abs(share - 0.5).max() < 4 * 0.5 / np.sqrt(len(sets))


def test_a_retraining_is_named_by_what_it_lacks():
    assert without(["b", "a", "b"], 3) == without(("a", "b"), 3)
    names = {without(r, s).name for r in ((), ("a",), ("a", "b"), ("ab",)) for s in (0, 1)}
    assert len(names) == 8


def test_kept_is_in_the_order_of_the_ids():
    found = kept(["c", "a", "b"], [("a",), (), ("b", "c")])
    np.testing.assert_array_equal(found, [[1, 0, 1], [1, 1, 1], [0, 1, 0]])
    assert kept(["a"], []).shape == (0, 1)
    with pytest.raises(InputError, match="'z'"):
        kept(["a"], [("z",)])


@pytest.mark.parametrize(("count", "share"), [(0, 0.5), (1, 0.0), (1, 1.0), (1, 0.01)])
def test_sets_of_nothing_or_all_are_refused(count, share):
    with pytest.raises(InputError, match="some tracks in and some out"):
        random_removals(IDS, count, share, 0)
