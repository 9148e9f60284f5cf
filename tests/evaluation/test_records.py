import numpy as np
import pytest

from tda_jax.errors import InputError
from tda_jax.evaluation.ranking import mean_interval
from tda_jax.evaluation.records import Key, Record, Table

FIRST, SECOND = Key("study", "a"), Key("study", "b", "exact")


def records():
    yield Record(FIRST, 0, "p", 1.0)
    yield Record(FIRST, 0, "q", 3.0)
    yield Record(FIRST, 1, "p", 5.0)
    yield Record(FIRST, 1, "q", np.nan)
    yield Record(SECOND, 0, "p", 1.0)
    yield Record(SECOND, 1, "p", 6.0)
    yield Record(Key("other", "a"), 0, "p", np.nan)


def test_queries_are_averaged_within_a_seed_first():
    table = Table(records())
    np.testing.assert_array_equal(table.seeds(FIRST), [2.0, 5.0])
    assert table.interval(FIRST) == mean_interval(np.array([2.0, 5.0]))


def test_differences_are_paired_by_seed():
    table = Table(records())
    assert table.difference(FIRST, SECOND) == mean_interval(np.array([1.0, -1.0]))


def test_keys_are_found_by_their_parts():
    table = Table(records())
    assert table.keys == [FIRST, SECOND, Key("other", "a")]
    assert table.select(study="study", method="exact") == [SECOND]


def test_a_figure_without_values_has_no_interval():
    assert Table(records()).interval(Key("other", "a")) is None


def test_a_figure_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no figure"):
        Table(records()).seeds(Key("study", "c"))
