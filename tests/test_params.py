import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tda_jax import params as tree
from tda_jax.errors import InputError

TREE = {"a": {"kernel": jnp.ones(2), "bias": jnp.zeros(1)}, "b": {"c": {"kernel": jnp.ones(3)}}}


def test_split_selects_whole_paths_only():
    selected, rest = tree.split(TREE, r".*/kernel")
    assert set(selected) == {"a/kernel", "b/c/kernel"}
    assert set(rest) == {"a/bias"}
    selected, _ = tree.split(TREE, r"a/.*")
    assert set(selected) == {"a/kernel", "a/bias"}


def test_a_pattern_that_selects_nothing_is_refused():
    with pytest.raises(InputError, match="'kernel' selects none of 3 parameters; their paths look"):
        tree.split(TREE, "kernel")


def test_parts_that_overlap_are_refused():
    with pytest.raises(InputError, match=r"these parameters are in two parts: \['a/bias'\]"):
        tree.merge({"a/bias": 1}, {"a/bias": 2})


_NAMES = st.text("abcdefgh0123456789_", min_size=1, max_size=4)
_TREES = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(_NAMES, inner, min_size=1, max_size=3),
    max_leaves=9,
)


@given(st.dictionaries(_NAMES, _TREES, min_size=1), st.sampled_from(["a", "b", "1", "_"]))
def test_merge_undoes_split(params, letter):
    pattern = f".*{letter}.*"
    if not any(letter in path for path in tree.flatten(params)):
        return
    selected, rest = tree.split(params, pattern)
    assert not selected.keys() & rest.keys()
    assert tree.merge(selected, rest) == params
