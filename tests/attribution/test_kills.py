"""Runs killed with SIGKILL at random moments, alone and two together, finish to the same bits."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.attribution.test_hosts import METHODS, run, same_bits, start

pytestmark = pytest.mark.slow  # about seven minutes
TIMES = 10  # for one process, and as often for two


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """By method and number of processes, what a run leaves and how many seconds it takes."""
    made = {}
    for method in METHODS:
        for count in (1, 2):
            for _ in range(2):  # the first one compiles
                began = time.monotonic()
                out = run(tmp_path_factory.mktemp("whole"), count, method=method)
                made[method, count] = out, time.monotonic() - began
    return made


@pytest.fixture(scope="module")
def seen():
    """Of each kill, how many chunks were finished, and how many there are."""
    return []


def computed(workdir):
    """The marks of chunks that were computed, in that order, one for each time."""
    path = workdir / "computed.txt"
    return [Path(line) for line in path.read_text().splitlines()] if path.exists() else []


def finished(workdir):
    """The marks of finished chunks."""
    return set(workdir.rglob("done/*.json"))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", range(TIMES))
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(
    tmp_path, undisturbed, seen, seed, count
):
    rng = np.random.default_rng([seed, count])
    method = METHODS[seed % 2]
    wanted, seconds = undisturbed[method, count]
    running = start(tmp_path, count, method=method)
    time.sleep(rng.uniform(0.3, 1.0) * seconds)  # before that Python is still starting
    for process in running:
        process.send_signal(signal.SIGKILL)
    for process in running:
        assert process.wait(60) in (0, -signal.SIGKILL)
    (tmp_path / "out.npz").unlink(missing_ok=True)  # a copy of what the workdir holds
    kept, before = finished(tmp_path), computed(tmp_path)
    assert kept <= set(before)
    same_bits(run(tmp_path, count, method=method), wanted)
    later = computed(tmp_path)[len(before) :]
    assert set(later) == finished(tmp_path) - kept  # no finished chunk was computed again
    assert len(later) == len(set(later))
    assert len(set(later) & set(before)) <= count  # of each process the one it was writing
    assert not list(tmp_path.rglob("*.part"))
    seen.append((len(kept), len(finished(tmp_path))))


def test_some_were_killed_between_two_chunks(seen):
    if len(seen) < 2 * TIMES:
        pytest.skip("not all kills were run")
    assert any(0 < kept < whole for kept, whole in seen), seen
