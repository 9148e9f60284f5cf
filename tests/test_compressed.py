"""Metadata kept as text are those that were given, wherever they are asked for."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tda_jax import compressed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
MAPPINGS = st.lists(st.dictionaries(st.text(), VALUES, max_size=3), min_size=1, max_size=8)


@given(MAPPINGS, st.sampled_from([1, 63, 64, 65, 130]), st.data())
def test_what_comes_out_is_what_went_in(some, n, data):
    given_ones = [some[i % len(some)] for i in range(n)]
    kept = compressed.compress(iter(given_ones))
    assert list(kept) == given_ones
    assert len(kept) == n
    cut = data.draw(st.slices(n))
    assert list(kept[cut]) == given_ones[cut]
    rows = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=9)))
    taken = compressed.taken(compressed.taken(kept, np.arange(n)[::-1]), rows)
    assert list(taken) == [given_ones[::-1][i] for i in rows]
    assert compressed.taken(given_ones, rows) == tuple(given_ones[i] for i in rows)


def test_no_mappings():
    assert list(compressed.compress([])) == []


@pytest.mark.parametrize("at", [3, -4])
def test_a_mapping_that_there_is_not(at):
    with pytest.raises(IndexError):
        compressed.compress([{}] * 3)[at]


def test_half_a_surrogate_pair_and_nan_survive():
    odd = compressed.compress([{"title": "\ud800\u2028\n", "gain": math.nan}])[0]
    assert odd["title"] == "\ud800\u2028\n"
    assert math.isnan(odd["gain"])


def test_who_changes_one_changes_none_of_the_others():
    kept = compressed.compress([{"tags": ["a"]}] * 2)
    kept[0]["tags"].append("b")
    assert kept[0] == kept[1] == {"tags": ["a"]}


def test_a_hundred_bytes_a_track():
    n = 10_000
    some = ({"title": f"Title {i}", "artist": f"Artist {i % 100}", "at": i / 7} for i in range(n))
    tracemalloc.start()
    try:
        kept = compressed.compress(some)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept) == n
    assert size < 100 * n
