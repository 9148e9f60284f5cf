import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.errors import InputError
from tda_jax.evaluation.removal import compare_removals, rises, top

NAN = float("nan")
IDS = ["d", "c", "b", "a", "e"]
MEMBERS = np.array([1, 1, 1, 1, 0], bool)


def test_the_highest_members_by_hand():
    scores = np.array([1.0, 2.0, 2.0, NAN, 9.0])
    assert top(scores, IDS, MEMBERS, 1) == ("b",)
    assert top(scores, IDS, MEMBERS, 3) == ("b", "c", "d")
    assert top(scores, IDS, MEMBERS, 4) == ("b", "c", "d", "a")
    assert top(np.full(5, NAN), IDS, MEMBERS, 2) == ("a", "b")
    assert top(np.array([-np.inf, NAN, np.inf, 0, 0]), IDS, MEMBERS, 4) == ("b", "a", "d", "c")


@settings(deadline=None)
@given(st.integers(0, 999), st.integers(1, 5))
def test_the_top_is_of_the_tracks_and_not_of_their_order(seed, k):
    rng = np.random.default_rng(seed)
    scores, members = np.round(rng.normal(size=9)), np.arange(9) < 5
    scores[rng.integers(9)] = NAN
    names = [f"track{i}" for i in rng.permutation(9)]
    expected = top(scores, names, members, k)
    order = rng.permutation(9)
    assert top(scores[order], [names[i] for i in order], members[order], k) == expected
    assert len(set(expected)) == k
    inside = [scores[names.index(name)] for name in expected]
    outside = [scores[i] for i in range(5) if names[i] not in expected]
    assert not any(o > i for o in outside for i in inside)


@pytest.mark.parametrize("k", [0, 5])
def test_a_top_that_is_not_there_is_refused(k):
    with pytest.raises(InputError, match=rf"top {k} of 4 members; give k in 1 .. 4"):
        top(np.zeros(5), IDS, MEMBERS, k)


def test_rises_are_paired_by_seed():
    full = np.array([[1.0, 2.0], [10.0, 20.0]])
    np.testing.assert_allclose(rises(full + np.array([[0.5, -1.0], [1.5, 2.0]]), full), [1.0, 0.5])


def test_a_method_that_finds_the_support_is_ahead():
    rng = np.random.default_rng(0)
    common = 5 * rng.normal(size=24)
    by_method = {
        "true": common + 1 + 0.1 * rng.normal(size=24),
        "random": common,
        "harmful": common - 1,
    }
    result = compare_removals(by_method, "true", 500, 0)
    assert list(result) == list(by_method)
    for name, (rise, behind) in result.items():
        assert rise.mean == pytest.approx(by_method[name].mean())
        assert behind.mean == pytest.approx((by_method["true"] - by_method[name]).mean())
        assert rise.low < rise.mean < rise.high
        assert rise.high - rise.low > 2  # queries differ far more than methods do
    assert result["true"][1] == (0.0, 0.0, 0.0, 500)
    assert 0.9 < result["random"][1].low < result["random"][1].high < 1.1
    assert result["harmful"][1].low > 1.9


def test_queries_that_one_method_lacks_are_in_no_difference_with_it():
    by_method = {"one": np.array([1.0, 2.0, NAN]), "two": np.array([NAN, 1.0, 5.0])}
    result = compare_removals(by_method, "one", 50, 0)
    assert (result["one"][0].mean, result["two"][0].mean) == (1.5, 3.0)
    assert result["two"][1].mean == result["two"][1].low == result["two"][1].high == 1.0


def test_methods_that_cannot_be_held_together_are_refused():
    with pytest.raises(InputError, match=r"the reference 'b' is no method; give one of .'a'"):
        compare_removals({"a": np.zeros(3)}, "b", 10, 0)
    with pytest.raises(InputError, match=r"rises of .'a': 3, 'b': 4. queries"):
        compare_removals({"a": np.zeros(3), "b": np.zeros(4)}, "a", 10, 0)
