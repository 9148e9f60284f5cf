"""A full disk, or one that cannot be written, ends a run with an error; nothing good is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
# A file system of its own, in a namespace of its own: what no permission keeps root from filling.
OWN = ["unshare", "--map-root-user", "--mount"]
MOUNT = "mount -t tmpfs -o size={size} none {at}"
RUN = "{python} -m tests.attribution.child {at} '{given}'"

SLOW = pytest.mark.slow
pytestmark = pytest.mark.skipif(
    subprocess.run([*OWN, "true"], capture_output=True).returncode != 0,
    reason="this machine lets nobody mount a file system of their own",
)


def shell(*lines):
    return subprocess.run(
        [*OWN, "sh", "-c", "\n".join(lines)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        text=True,
        capture_output=True,
        timeout=300,
    )


def run(at, **given):
    return RUN.format(python=sys.executable, at=at, given=json.dumps(given))


def files(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "out.npz"
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run leaves, and how many bytes that is."""
    folder = tmp_path_factory.mktemp("whole")
    done = shell(run(folder))
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "out.npz")), files(folder)


@pytest.mark.parametrize("share", [0.5, *(pytest.param(x, marks=SLOW) for x in (0.2, 0.8))])
def test_a_full_disk_is_said_and_with_space_the_run_goes_on(whole, tmp_path, share):
    arrays, left = whole
    pages = sum(-(-len(data) // 4096) for data in left.values())
    at = tmp_path / "disk"
    at.mkdir()
    done = shell(
        MOUNT.format(size=f"{int(share * pages) * 4}k", at=at),
        run(at) + f" 2> {tmp_path}/error && exit 9",
        f"mount -o remount,size=1g {at}",
        f"{run(at)} && cp {at}/out.npz {tmp_path}/out.npz",
    )
    assert done.returncode == 0, done.stderr
    last = (tmp_path / "error").read_text().strip().splitlines()[-1]
    assert last.startswith("tda_jax.errors.InputError: ")
    assert str(at) in (tmp_path / "error").read_text()
    assert "space" in (tmp_path / "error").read_text()
    found = np.load(tmp_path / "out.npz")
    assert found.files == list(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_a_workdir_that_cannot_be_written_is_said_and_stays_as_it_is(whole, tmp_path):
    at = tmp_path / "disk"
    at.mkdir()
    done = shell(
        MOUNT.format(size="1g", at=at),
        run(at, kill=["linearised sweep", 4]),
        f"cp -r {at} {tmp_path}/before",
        f"mount -o remount,ro {at}",
        run(at) + f" 2> {tmp_path}/error && exit 9",
        f"cp -r {at} {tmp_path}/after",
    )
    assert done.returncode == 0, done.stderr
    error = (tmp_path / "error").read_text()
    assert "tda_jax.errors.InputError: " in error
    assert f"{at}" in error.split("tda_jax.errors.InputError: ")[-1]
    before, after = files(tmp_path / "before"), files(tmp_path / "after")
    assert before == after
    assert len(before) > 3
