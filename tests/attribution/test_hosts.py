"""Real processes share a run: the bits of one, whoever is killed and how many go on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tda_jax import hosts
from tda_jax.errors import InputError

ROOT = Path(__file__).parent.parent.parent
METHODS = ["linearised", "exact"]
TRACKS = 23  # which neither chunks nor processes divide


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(workdir, count, **given):
    """That many processes, which share a run."""
    port, found = free_port(), []
    for index in range(count):
        own = {"model": "tiny", "tracks": TRACKS, **given}
        own |= {"hosts": [port, count, index]} if count > 1 else {}
        if index != given.get("killed", index):
            own.pop("kill", None)
        log = (workdir / f"log {index}").open("w")
        found.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.attribution.child", str(workdir), json.dumps(own)],
                cwd=ROOT,
                env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
    return found


def run(workdir, count, **given):
    """What they leave; every one must end well."""
    for index, process in enumerate(start(workdir, count, **given)):
        assert process.wait(300) == 0, (workdir / f"log {index}").read_text()[-3000:]
    return dict(np.load(workdir / "out.npz"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs of one process, each made once."""
    made = {}

    def get(method):
        if method not in made:
            made[method] = run(tmp_path_factory.mktemp("alone"), 1, method=method)
        return made[method]

    return get


def same_bits(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize("method", [METHODS[0], pytest.param(METHODS[1], marks=pytest.mark.slow)])
def test_two_processes_give_the_bits_of_one(tmp_path, alone, method):
    same_bits(run(tmp_path, 2, method=method), alone(method))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_four_processes_give_the_bits_of_one(tmp_path, alone, method):
    same_bits(run(tmp_path, 4, method=method), alone(method))


KILLS = [
    ("linearised", ["Fisher information", 4]),
    ("linearised", ["linearised sweep", 4]),
    ("exact", ["losses after unlearning", 4]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kill"), KILLS, ids=str)
def test_two_processes_finish_what_four_began(tmp_path, alone, method, kill):
    for process in start(tmp_path, 4, method=method, kill=kill):
        assert process.wait(300) != 0
    assert not (tmp_path / "out.npz").exists()
    assert list(tmp_path.glob("fisher*"))
    same_bits(run(tmp_path, 2, method=method), alone(method))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_the_others_of_a_killed_process_end_and_a_new_start_finishes(tmp_path, alone, killed):
    both = start(tmp_path, 2, method="exact", kill=["losses before", 4], killed=killed)
    assert both[killed].wait(300) == -signal.SIGKILL
    began = time.monotonic()
    assert both[1 - killed].wait(180) != 0
    assert time.monotonic() - began < 180
    same_bits(run(tmp_path, 2, method="exact"), alone("exact"))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [0, 1, 5, 23])
def test_shares_are_whole_and_of_like_size(total, count):
    shares = [hosts.share(hosts.Hosts(i, count), total) for i in range(count)]
    assert [x for share in shares for x in share] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", 2, 0), "no coordinator"),
        (("", 0, 1), "no coordinator"),
        (("localhost:1", 2, 2), "the index of each from 0"),
        (("localhost:1", 0, 0), "how many"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        hosts.join(*given)


def test_a_process_alone_meets_nobody():
    assert hosts.join() == hosts.ALONE
    hosts.meet(hosts.ALONE, "here")
    assert hosts.first_then_all(hosts.ALONE, "here", lambda: 3) == 3
