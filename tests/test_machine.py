"""What a process may use is what its scheduler gives it."""

import os
import subprocess
import sys

import pytest

from tda_jax import machine

WHOLE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def made(tmp_path, limits, group="0::/slurm/job_7/step_0\n"):
    own = tmp_path / "own"
    own.write_text(group)
    for place, limit in limits.items():
        folder = tmp_path / "cgroup" / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
    return machine.memory(own, tmp_path / "cgroup")


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({}, WHOLE),
        ({"slurm/job_7/step_0": 4096}, 4096),
        ({"slurm/job_7/step_0": "max", "slurm/job_7": 8192, "slurm": 16384}, 8192),
        ({"slurm/job_8": 1024}, WHOLE),
        ({"slurm": 10 * WHOLE}, WHOLE),
        ({"": 2048}, 2048),
    ],
)
def test_memory_is_the_least_limit(tmp_path, limits, wanted):
    assert made(tmp_path, limits) == wanted


def test_a_container_that_sees_itself_as_the_root(tmp_path):
    assert made(tmp_path, {"": 2048}, "0::/\n") == 2048
    assert made(tmp_path, {"": 2048}, "12:memory:/other\n") == WHOLE  # version 1 alone


def test_without_control_groups_it_is_the_machine_s(tmp_path):
    assert machine.memory(tmp_path / "nothing", tmp_path) == WHOLE
    assert machine.memory() <= WHOLE


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux says who runs where")
def test_cores_are_those_it_may_run_on():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from tda_jax import machine; print(machine.cores())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "1"
    assert machine.cores() == len(os.sched_getaffinity(0))
