"""Files of status, and what process 0 tells of all."""

import json

import pytest

from experiments import status
from experiments.status import Status
from tda_jax.hosts import Hosts


@pytest.fixture
def told():
    return []


def content(folder, index):
    return json.loads((folder / f"{index:05d}.json").read_text())


def test_a_process_alone_passes_on_what_it_is_told(tmp_path, told, monkeypatch):
    monkeypatch.setattr(status, "_OFTEN", 0.0)
    kept = Status(lambda *x: told.append(x), tmp_path, Hosts())
    for done in (0, 3, 5):
        kept("sweep", done, 5)
    assert told == [("sweep", 0, 5), ("sweep", 3, 5), ("sweep", 5, 5)]
    found = content(tmp_path, 0)
    assert (found["process"], found["stage"], found["done"], found["total"]) == (0, "sweep", 5, 5)
    assert found["updated"] > 1.7e9


def test_process_0_tells_of_all_that_are_at_its_stage(tmp_path, told):
    for index, stage in ((1, "sweep"), (2, "losses before")):
        Status(lambda *x: told.append(x), tmp_path, Hosts(index, 3))(stage, 2, 10)
    assert told == []
    Status(lambda *x: told.append(x), tmp_path, Hosts(0, 3))("sweep", 1, 9)
    assert told == [("sweep", 3, 19)]


def test_within_a_stage_it_writes_now_and_then_and_always_at_the_end(tmp_path, told):
    kept = Status(lambda *x: told.append(x), tmp_path, Hosts())
    for done in range(5):
        kept("sweep", done, 4)
    assert told == [("sweep", 0, 4), ("sweep", 4, 4)]
    kept("tables", 0, 2)
    assert content(tmp_path, 0)["stage"] == "tables"
