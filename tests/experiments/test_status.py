"""Files of status, and what process 0 tells of all."""

import json
import struct
import threading
import time
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event

from experiments import status
from experiments.status import Status
from tda_jax import places
from tda_jax.errors import InputError
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


def scalars(folder):
    """What TensorBoard finds: records of a length, its check, an event, and its check."""
    (path,) = folder.iterdir()
    return scalars_of(path.read_bytes())


def scalars_of(data):
    found = []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + size])
        found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
        data = data[16 + size :]
    return found


def test_tensorboard_finds_the_work_done_and_its_rate(tmp_path, told, monkeypatch):
    monkeypatch.setattr(status, "_OFTEN", 0.0)
    times = iter([0.0, 2.0, 4.0])
    clock = SimpleNamespace(monotonic=lambda: next(times), time=time.time)
    monkeypatch.setattr(status, "time", clock)
    kept = Status(lambda *x: told.append(x), tmp_path, Hosts(1, 2))
    for done in (10, 16, 30):
        kept("linearised sweep", done, 30)
    assert scalars(tmp_path / "00001") == [
        ("linearised_sweep/done", 10, 10.0),
        ("linearised_sweep/done", 16, 16.0),
        ("linearised_sweep/a_second", 16, 3.0),
        ("linearised_sweep/done", 30, 30.0),
        ("linearised_sweep/a_second", 30, 5.0),
    ]


def test_a_disk_that_takes_no_events_ends_them_and_not_the_run(tmp_path, told, monkeypatch, capsys):
    monkeypatch.setattr(status, "_OFTEN", 0.0)
    kept = Status(lambda *x: told.append(x), tmp_path, Hosts())
    kept("sweep", 0, 9)

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept._events, "flush", full)
    for done in range(1, 9):
        kept("sweep", done, 9)
    assert told[-1] == ("sweep", 8, 9)
    assert capsys.readouterr().err.count("No space left") == 1


def test_nothing_is_written_before_there_is_progress(tmp_path, told):
    Status(lambda *x: told.append(x), tmp_path / "status", Hosts())
    assert not (tmp_path / "status").exists()


def test_it_says_how_a_run_ended(tmp_path, told):
    with Status(lambda *x: told.append(x), tmp_path, Hosts()) as kept:
        kept("sweep", 1, 5)
        assert content(tmp_path, 0)["state"] == "running"
        kept("sweep", 5, 5)
    found = content(tmp_path, 0)
    assert (found["state"], found["stage"], found["done"]) == ("finished", "sweep", 5)
    kept = Status(lambda *x: told.append(x), tmp_path, Hosts())
    kept("sweep", 2, 5)
    with pytest.raises(InputError), kept:
        raise InputError("the disk is full; free space")
    found = content(tmp_path, 0)
    assert (found["state"], found["reason"]) == ("failed", "the disk is full; free space")
    assert found["done"] == 2


def test_a_run_that_fails_before_it_begins_leaves_nothing(tmp_path, told):
    kept = Status(lambda *x: told.append(x), tmp_path / "status", Hosts())
    with pytest.raises(InputError), kept:
        raise InputError("a folder of something else")
    assert not (tmp_path / "status").exists()


def test_processes_that_are_none_any_more_leave_no_file(tmp_path, told):
    for index in range(4):
        Status(lambda *x: told.append(x), tmp_path, Hosts(index, 4))("sweep", 1, 5)
    Status(lambda *x: told.append(x), tmp_path, Hosts(1, 2))
    assert sorted(p.name for p in tmp_path.glob("*.json")) == [f"{i:05d}.json" for i in (0, 2, 3)]
    Status(lambda *x: told.append(x), tmp_path, Hosts(0, 2))
    assert not list(tmp_path.glob("*.json"))


def test_a_folder_that_is_none_is_an_error_in_words(tmp_path, told):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Status(lambda *x: told.append(x), tmp_path / "file" / "status", Hosts(1, 2))


def test_in_a_bucket_it_is_the_same(bucket, told, monkeypatch):
    monkeypatch.setattr(status, "_TO_A_BUCKET", 0.5)
    folder = places.place("gs://bucket/run/status")
    for index in (1, 2, 9):  # 9 is of an earlier run, of more processes
        Status(lambda *x: told.append(x), folder, Hosts(index, 10))("sweep", index, 10)
    with Status(lambda *x: told.append(x), folder, Hosts(0, 3)) as kept:
        kept("sweep", 0, 4)
        first = json.loads(places.read(folder / "00000.json"))
        kept("sweep", 2, 4)
        assert json.loads(places.read(folder / "00000.json")) == first  # the thread writes it
        until = time.monotonic() + 30
        while told[-1] != ("sweep", 5, 24) or bucket.asked[-1].startswith("POST"):
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.6)
    assert first["done"] == 0  # which was written at once, to see that it may be
    assert told == [("sweep", 3, 24), ("sweep", 5, 24)]
    names = {name.removeprefix("run/status/") for name in bucket.objects}
    assert {n for n in names if n.endswith(".json")} == {f"{i:05d}.json" for i in range(3)}
    assert json.loads(places.read(folder / "00000.json"))["state"] == "finished"
    (events,) = (name for name in names if name.startswith("00000/events.out.tfevents"))
    assert scalars_of(bucket.objects[f"run/status/{events}"].content)[-2][:2] == ("sweep/done", 2)


def test_while_a_process_waits_it_says_that_it_lives_and_how_far_the_others_are(
    tmp_path, told, monkeypatch
):
    monkeypatch.setattr(status, "_OFTEN", 0.02)
    other = Status(lambda *x: told.append(x), tmp_path, Hosts(1, 2))
    with Status(lambda *x: told.append(x), tmp_path, Hosts(0, 2)) as kept:
        other("sweep", 1, 5)
        kept("sweep", 5, 5)  # its own share is done
        before = content(tmp_path, 0)["updated"]
        other("sweep", 5, 5)
        until = time.monotonic() + 30
        while told[-1] != ("sweep", 10, 10) or content(tmp_path, 0)["updated"] == before:
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.2)
    assert told == [("sweep", 6, 10), ("sweep", 10, 10)]  # and nothing twice
    ended = (tmp_path / "00000.json").read_bytes()
    time.sleep(0.1)
    assert (tmp_path / "00000.json").read_bytes() == ended  # nothing writes after the end


def test_a_bucket_that_refuses_later_is_told_once_and_ends_nothing(
    bucket, told, monkeypatch, capsys
):
    monkeypatch.setattr(status, "_TO_A_BUCKET", 0.02)
    folder = places.place("gs://bucket/run/status")
    with Status(lambda *x: told.append(x), folder, Hosts()) as kept:
        kept("sweep", 0, 4)
        bucket.refusing = True
        time.sleep(0.2)
        kept("sweep", 4, 4)
    assert told == [("sweep", 0, 4), ("sweep", 4, 4)]
    said = capsys.readouterr().err
    assert said.count("the status in gs://bucket/run/status may grow old") == 1
    assert "this bucket may not be written" in said
    assert "Traceback" not in said


def test_a_bucket_that_does_not_answer_holds_nobody_up(bucket, told, monkeypatch):
    monkeypatch.setattr(status, "_TO_A_BUCKET", 0.02)
    monkeypatch.setattr(status, "_PATIENCE", 0.2)
    answers = threading.Event()
    read = Status._read

    def stuck(self, index):
        return answers.wait(60) and read(self, index)

    began = time.monotonic()
    with Status(lambda *x: told.append(x), places.place("gs://bucket/s"), Hosts(0, 2)) as kept:
        kept("sweep", 0, 4)
        monkeypatch.setattr(Status, "_read", stuck)
        time.sleep(0.1)
        kept("sweep", 4, 4)
    assert time.monotonic() - began < 30
    answers.set()
