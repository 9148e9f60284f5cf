"""Sizes that are left open are the largest that fit and are worth it."""

import jax
import numpy as np
import pytest

from tda_jax import devices, examples
from tda_jax.attribution import plan, sizes
from tda_jax.attribution.contract import split_group
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.errors import InputError
from tests.attribution import tiny

MODEL = tiny.model(dtype=np.float32)
CORPUS = tiny.corpus(7, dtype=np.float32)
QUERIES = tiny.corpus(6, dtype=np.float32, prefix="query")
LINEAR = Settings(100, "attention", fisher_draws=4, query_draws=32, blocks=2, strata=10)
OPEN = Compute(devices.local_devices(1), 0, 0, 0)
MUCH = 2**40


def fitting(room, settings=LINEAR, compute=OPEN, queries=QUERIES):
    return sizes.fitting(MODEL, CORPUS, queries, settings, compute, room)


@pytest.mark.parametrize("method", ["linearised", "exact"])
def test_where_all_fits_they_are_those_that_are_worth_it(method):
    found = fitting(MUCH, LINEAR._replace(method=method))
    assert found == OPEN._replace(**sizes.ON_CPU._asdict())
    few = fitting(MUCH, LINEAR._replace(method=method), queries=examples.take(QUERIES, [0, 3]))
    assert few.queries_per_pass == 2


def test_what_is_given_stays():
    given = OPEN._replace(batch=3, fisher_batch=7, queries_per_pass=2)
    assert fitting(1, compute=given) == given
    assert fitting(MUCH, compute=given._replace(batch=0)) == given._replace(batch=8)


@pytest.mark.parametrize("method", ["linearised", "exact"])
@pytest.mark.parametrize("share", [0.3, pytest.param(0.6, marks=pytest.mark.slow), 0.9])
def test_they_fit_and_twice_as_much_would_not(method, share):
    settings, asked = LINEAR._replace(method=method), (MODEL, CORPUS, QUERIES)
    ones = OPEN._replace(batch=1, fisher_batch=1, queries_per_pass=1)
    for name, bytes_of in (("batch", plan.sweep_bytes), ("fisher_batch", plan.fisher_bytes)):
        at = {n: bytes_of(*asked, settings, ones._replace(**{name: n})) for n in (1, 2, 4, 8)}
        most = getattr(sizes.ON_CPU, name)
        room = int(at[1] + share * (at[most] - at[1])) + 1
        found = fitting(int(room / 0.9) + 1, settings, ones._replace(**{name: 0}))
        size = getattr(found, name)
        assert at[size] <= 1.01 * room
        assert size == most or at[2 * size] > 0.99 * room


def test_where_nothing_fits_it_is_said_before_any_work():
    with pytest.raises(
        InputError, match=r"queries_per_pass = 1 needs 0\.\d+ GB or more on each device"
    ):
        fitting(100)
    with pytest.raises(InputError, match="fisher_batch = 1 needs"):
        fitting(100, compute=OPEN._replace(batch=1, queries_per_pass=1))


def test_without_a_prediction_they_are_small():
    given, few = OPEN._replace(batch=3), examples.take(QUERIES, [0, 2])
    wanted = given._replace(fisher_batch=4, queries_per_pass=5)

    def asked(queries, room, settings=LINEAR):
        return sizes.unpredicted(MODEL, queries, settings, given, room)

    moved, _ = split_group(MODEL, LINEAR.group)
    each = LINEAR.blocks * sum(x.nbytes for x in moved.values())
    assert asked(QUERIES, 100 * each) == wanted
    assert asked(few, 100 * each) == wanted._replace(queries_per_pass=2)
    assert asked(QUERIES, 12 * each + 1) == wanted._replace(queries_per_pass=3)
    exact = LINEAR._replace(method="exact")
    assert asked(QUERIES, 12 * each // LINEAR.blocks + 1, exact).queries_per_pass == 3
    assert fitting(None, compute=given) == wanted._replace(queries_per_pass=1)
    assert asked(QUERIES, 1) == wanted._replace(queries_per_pass=1)


def test_a_compiler_that_refuses_what_does_not_fit(monkeypatch):
    asked = []

    def refuse(*given):
        batch = given[-1].batch
        asked.append(batch)
        if batch > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: of 16 GB")
        return batch

    monkeypatch.setattr(plan, "sweep_bytes", refuse)
    given = OPEN._replace(fisher_batch=1, queries_per_pass=1)
    assert fitting(10, compute=given).batch == 2
    assert asked[0] == 8


def test_a_device_says_what_it_has():
    used = devices.local_devices(1)
    assert 2**28 < devices.room(used) < 2**45
