"""A score depends on neither batch size, device count, corpus order nor a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.attribution import child

ROOT = Path(__file__).parent.parent.parent
METHODS = ["linearised", "exact"]
MODELS = ["tiny", pytest.param("small", marks=pytest.mark.slow)]
TRACKS = {"tiny": 23, "small": 23}


def process(workdir, devices=1, **given):
    """A run in its own process; its exit status and its arrays, if it came so far."""
    flag = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.attribution.child", str(workdir), json.dumps(given)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    out = workdir / "out.npz"
    if done.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(done.stderr[-3000:])
    return done.returncode, dict(np.load(out)) if out.exists() else None


def scores(out):
    """τ of each track and the loss before, for each query."""
    queries = sorted({name.split("|")[0] for name in out if "|" in name})
    for query, rate in zip(queries, out["rates"], strict=True):
        if "before" in out:
            before, rise = out["before"], out[f"{query}|loss"] - out["before"]
        else:
            a, b = out[f"{query}|a"], out[f"{query}|b"]
            before, rise = out[f"{query}|loss"], rate * a + rate**2 * b
        yield rise.mean((1, 2)), before.mean((1, 2))


def ranks(x):
    return np.argsort(np.argsort(x))


def assert_same(got, wanted):
    for (tau, before), (wanted_tau, wanted_before) in zip(scores(got), scores(wanted), strict=True):
        assert np.abs(tau - wanted_tau).max() <= 1e-6 * wanted_before.mean()
        np.testing.assert_allclose(before, wanted_before, rtol=1e-6)
        assert set(np.argsort(-tau)[:10]) == set(np.argsort(-wanted_tau)[:10])
        assert np.corrcoef(ranks(tau), ranks(wanted_tau))[0, 1] >= 0.9999
        assert np.ptp(wanted_tau) > 1e-4 * wanted_before.mean()  # there is something to compare


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Runs at batch 8 on one device, by (model, method), each made once."""
    made = {}

    def get(model, method):
        if (model, method) not in made:
            workdir = tmp_path_factory.mktemp("undisturbed")
            _, made[model, method] = process(
                workdir, model=model, method=method, tracks=TRACKS[model]
            )
        return made[model, method]

    return get


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_batch_size(tmp_path, undisturbed, model, method, batch):
    got = child.attribute(tmp_path, model=model, method=method, tracks=TRACKS[model], batch=batch)
    assert_same(got, undisturbed(model, method))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_device_count(tmp_path, undisturbed, model, method):
    _, got = process(tmp_path, 8, model=model, method=method, tracks=TRACKS[model], batch=3)
    assert got["devices"] == 8
    assert_same(got, undisturbed(model, method))


@pytest.mark.parametrize("method", METHODS)
def test_corpus_order(tmp_path, undisturbed, method):
    """Stores keep tracks by id, so the order given leaves no trace at all."""
    got = child.attribute(tmp_path, method=method, tracks=TRACKS["tiny"], order=1)
    assert_same(got, undisturbed("tiny", method))


@pytest.mark.parametrize("method", METHODS)
def test_chunk_size(tmp_path, undisturbed, method):
    got = child.attribute(tmp_path, method=method, tracks=TRACKS["tiny"], chunk=7)
    assert_same(got, undisturbed("tiny", method))


KILLS = [
    ("linearised", ["Fisher information", 8]),
    pytest.param("linearised", ["queries unlearned", 1], marks=pytest.mark.slow),
    ("linearised", ["linearised sweep", 12]),
    pytest.param("exact", ["losses before", 4], marks=pytest.mark.slow),
    ("exact", ["losses after unlearning", 20]),
]


@pytest.mark.parametrize(("method", "kill"), KILLS, ids=lambda k: str(k))
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, undisturbed, method, kill):
    given = {"model": "tiny", "method": method, "tracks": TRACKS["tiny"]}
    status, out = process(tmp_path, kill=kill, **given)
    assert status == -signal.SIGKILL
    assert out is None
    status, got = process(tmp_path, **given)
    assert status == 0
    wanted = undisturbed("tiny", method)
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
