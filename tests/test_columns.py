"""Columns stand where arrays would, and never hold more than what is asked for."""

import threading

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tda_jax import columns
from tda_jax.columns import Column
from tda_jax.examples import corpus_fingerprint, corpus_of, first_frames, in_memory, take


def column(array, asked=None):
    def read(rows):
        if asked is not None:
            asked.append(len(rows))
        return array[rows]

    return Column(array.shape, array.dtype, read)


def numbers(n):
    return np.random.default_rng(n).standard_normal((n, 3, 2)).astype(np.float32)


@given(st.integers(1, 20), st.data())
def test_indexing_is_that_of_the_array(n, data):
    array = numbers(n)
    some = data.draw(
        st.one_of(
            st.integers(-n, n - 1),
            st.slices(n),
            st.lists(st.integers(0, n - 1)).map(lambda x: np.array(x, np.int64)),
            st.lists(st.booleans(), min_size=n, max_size=n).map(np.array),
        )
    )
    got, wanted = column(array)[some], array[some]
    assert got.shape == wanted.shape
    assert got.dtype == wanted.dtype
    assert np.array_equal(got, wanted)


def test_a_row_that_there_is_not():
    with pytest.raises(IndexError):
        column(numbers(3))[3]


@given(st.integers(1, 20), st.data())
def test_taken_of_taken_and_mapped_read_nothing_before_they_are_asked(n, data):
    array, asked = numbers(n), []
    rows = [np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1))) for _ in range(2)]
    rows[1] %= len(rows[0])
    lazy = columns.mapped(lambda x: 2 * x, column(array, asked))
    lazy = columns.taken(columns.taken(lazy, rows[0]), rows[1])
    assert asked == []
    assert np.array_equal(lazy[:], 2 * array[rows[0]][rows[1]])


@pytest.mark.parametrize("size", [1, 3, 7, 8])
def test_blocks_are_of_the_size_and_one_is_read_ahead(size, monkeypatch):
    array, asked = numbers(7), []
    data = {"a": column(array, asked), "b": array}
    monkeypatch.setattr(columns, "_BLOCK", size * 2 * array[0].nbytes)
    seen = []
    for rows, some in columns.blocks(data):
        assert np.array_equal(some["a"], array[rows])
        assert np.array_equal(some["b"], array[rows])
        seen.append(rows.start)
        assert len(asked) <= len(seen) + 1
    assert max(asked) == min(size, 7)
    assert seen == list(range(0, 7, size))


def test_the_next_is_read_while_one_is_used():
    begun = [threading.Event() for _ in range(3)]

    def read(item):
        begun[item].set()
        return item

    for item, value in columns.ahead(read, range(3)):
        assert item == value
        assert begun[min(item + 1, 2)].wait(10)


def test_what_reading_raises_comes_in_its_turn():
    def read(item):
        if item == 1:
            raise OSError("gone")
        return item

    found = columns.ahead(read, range(3))
    assert next(found) == (0, 0)
    with pytest.raises(OSError, match="gone"):
        next(found)


def test_a_corpus_of_columns_is_that_of_the_arrays():
    array, ids = numbers(5), list("cadbe")
    masks = np.arange(3) < np.array([1, 2, 3, 3, 1])[:, None]
    condition = {"text": np.arange(10.0).reshape(5, 2)}
    wanted = corpus_of(ids, array, condition, masks)
    lazy = corpus_of(
        ids, column(array), jax.tree.map(column, condition), first_frames([1, 2, 3, 3, 1], 3)
    )
    assert isinstance(lazy.examples.latent, Column)
    assert isinstance(take(lazy, [2, 0]).examples.latent, Column)
    assert corpus_fingerprint(lazy) == corpus_fingerprint(wanted)
    for got, there in ((lazy, wanted), (take(lazy, [2, 0]), take(wanted, [2, 0]))):
        leaves = zip(
            jax.tree.leaves(in_memory(got).examples), jax.tree.leaves(there.examples), strict=True
        )
        assert all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in leaves)
