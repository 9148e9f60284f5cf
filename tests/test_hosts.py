"""Real processes that only meet: in one folder or not, and how they end when they are told to."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MEET = """
import sys, time
from pathlib import Path
from tda_jax import hosts
from tda_jax.errors import InputError
port, index, folder = sys.argv[1:]
hosts._HEARTBEAT, hosts._SEEN_WITHIN = 10, 1.0
among = hosts.join(f"127.0.0.1:{port}", 2, int(index))
try:
    hosts.meet_in(among, Path(folder), "here")
    for i in range(20):  # of one name, one after the other
        said = hosts.agreed(among, "a matter", lambda: [i, among.index])
        assert said == [i, 0], said
    if "fails" in folder:
        def fail():
            raise InputError("what process 0 is to find is not there")
        hosts.agreed(among, "a matter", fail)
except InputError as error:
    print(error, flush=True)
    hosts.leave(1)
print("met", flush=True)
time.sleep(float(60 if "wait" in folder else 0))
"""


def start(folders):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    return [
        subprocess.Popen(
            [sys.executable, "-c", MEET, port, str(i), str(folder)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i, folder in enumerate(folders)
    ]


def test_processes_that_share_a_folder_meet_and_leave_nothing_there(tmp_path):
    for process in start([tmp_path / "run"] * 2):
        said, _ = process.communicate(timeout=120)
        assert (process.returncode, said.splitlines()[-1]) == (0, "met")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_is_not_shared_is_told_before_any_work(tmp_path):
    first, second = start([tmp_path / "here", tmp_path / "there"])
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 1
    assert f"{tmp_path / 'there'}: process 1 of 2 does not see there" in said
    assert "file system that they share" in said
    assert first.wait(180) != 0  # once the other is gone


def test_where_process_0_finds_nothing_to_tell_the_others_end_too(tmp_path):
    first, second = start([tmp_path / "fails"] * 2)
    said, _ = first.communicate(timeout=120)
    assert (first.returncode, said.splitlines()[-1]) == (
        1,
        "what process 0 is to find is not there",
    )
    assert second.wait(180) != 0


@pytest.mark.parametrize("told", [0, 1])
def test_a_process_that_is_told_to_end_ends(tmp_path, told):
    both = start([tmp_path / "wait"] * 2)
    for process in both:
        assert any(line == "met\n" for line in process.stdout)
    both[told].send_signal(signal.SIGTERM)
    assert both[told].wait(20) == -signal.SIGTERM
    both[1 - told].kill()
    for process in both:
        process.communicate(timeout=20)
