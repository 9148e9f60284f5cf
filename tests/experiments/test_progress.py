"""Bars of progress and the seconds of each stage."""

import time

from experiments.progress import Bars, Clock


def test_each_stage_has_a_bar_that_starts_where_the_work_does(capsys):
    with Bars() as bars:
        bars("sweep", 30, 100)
        bars("sweep", 60, 100)
        bars("queries unlearned", 0, 2)
        bars("queries unlearned", 2, 2)
        print("after")
    said = capsys.readouterr().err
    assert "sweep:  30%" in said
    assert "30/100 [00:00<?, ? track/s]" in said  # what was there before has no rate
    lines = said.strip().split("\n")
    assert [line.split("\r")[-1].split(":")[0] for line in lines] == ["sweep", "queries unlearned"]
    assert "sweep:  60%" in lines[0].split("\r")[-1]
    assert "100%" in lines[1].split("\r")[-1]


def test_time_belongs_to_the_stage_that_spoke_last(monkeypatch):
    now = iter([0.0, 2.0, 5.0, 6.0, 10.0, 17.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    events = []
    clock = Clock(lambda *event: events.append(event))  # at 0
    clock("a", 0, 2)  # at 2
    clock("a", 2, 2)  # at 5
    clock("b", 0, 1)  # at 6
    clock("a", 0, 1)  # at 10
    assert clock.seconds() == {"preparation": 2.0, "a": 3.0 + 1.0 + 7.0, "b": 4.0}  # at 17
    assert events == [("a", 0, 2), ("a", 2, 2), ("b", 0, 1), ("a", 0, 1)]


def test_time_of_earlier_runs_is_added(monkeypatch, tmp_path):
    now = iter([0.0, 2.0, 5.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    path = tmp_path / "summary.json"
    path.write_text('{"seconds": {"a": 10.0, "c": 1.5}}')
    clock = Clock(lambda *_: None)  # at 0
    clock("a", 0, 2)  # at 2
    assert clock.seconds(path) == {"a": 13.0, "c": 1.5, "preparation": 2.0}  # at 5
