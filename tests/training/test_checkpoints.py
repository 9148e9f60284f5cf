"""A killed training run goes on from its last checkpoint and ends with the same bits."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax.errors import InputError
from tda_jax.training import loop
from tda_jax.training.checkpoints import Checkpoints

ROOT = Path(__file__).parent.parent.parent
RECIPE = loop.Recipe(steps=40, batch=3, learning_rate=0.1, seed=5)
DATA = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


def loss(params, rows, key):
    del key
    return jnp.mean(jnp.square(rows - params["x"][None]))


def run(folder, source="one", recipe=RECIPE, wait=0.0, stop=None):
    """Trains; after each update it waits, and it ends with an error before update `stop`."""

    def rows(step, positions):
        time.sleep(wait)
        if step == stop:
            raise KeyboardInterrupt
        return DATA[positions]

    kept = None if folder is None else Checkpoints(folder, {"made of": source}, 10)
    return loop.train(loss, {"x": jnp.zeros(4)}, rows, len(DATA), recipe, kept)


def same(a, b):
    np.testing.assert_array_equal(a.params["x"], b.params["x"])
    np.testing.assert_array_equal(a.losses, b.losses)


def test_checkpoints_change_nothing(tmp_path):
    same(run(tmp_path), run(None))


@pytest.mark.parametrize("stop", [5, 10, 25, 39])
def test_a_run_that_stopped_goes_on_to_the_same_bits(tmp_path, stop):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop=stop)
    seen = []
    got = loop.train(
        loss,
        {"x": jnp.zeros(4)},
        lambda step, i: (seen.append(step), DATA[i])[1],
        len(DATA),
        RECIPE,
        Checkpoints(tmp_path, {"made of": "one"}, 10),
    )
    assert seen[0] == stop // 10 * 10
    same(got, run(None))


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "tests.training.test_checkpoints", tmp_path]
    child = subprocess.Popen(command, cwd=ROOT)
    while not any(p.name.isdigit() and p.name != "0" for p in tmp_path.iterdir()):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    same(run(tmp_path), run(None))


@pytest.mark.parametrize("steps", [40, 25])  # of checkpoints every 10 updates
def test_a_finished_run_does_no_update(tmp_path, steps):
    recipe = RECIPE._replace(steps=steps)
    first = run(tmp_path, recipe=recipe)
    same(run(tmp_path, recipe=recipe, stop=steps - 1), first)  # the last is done, too


def test_another_runs_checkpoints_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(InputError, match=r"delete .* to train again"):
        run(tmp_path, source="two")


if __name__ == "__main__":
    run(Path(sys.argv[1]), wait=0.05)
