"""Encoding by real processes, killed with SIGKILL at random moments: the same dataset."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from tda_jax.corpus import dataset
from tests.attribution.test_hosts import free_port
from tests.experiments import pipelines

pytestmark = pytest.mark.slow  # about five minutes

ROOT = Path(__file__).parent.parent.parent
RATE = 16000
SAID = ("slow piano", "fast drums", "a slow drone")
FILES = 13  # which neither chunks nor processes divide
CHUNK = 2
TIMES = 5  # for one process, and as often for two


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model of AudioLDM's kind and a folder of audio, with a file that is none."""
    place, rng = tmp_path_factory.mktemp("given"), np.random.default_rng(0)
    pipelines.write(place / "model", SAID)
    audio = place / "audio"
    audio.mkdir()
    lines = [{"file_name": "broken.wav", "caption": SAID[0]}]
    (audio / "broken.wav").write_bytes(b"no music")
    for i in range(FILES):
        sound = 0.2 * rng.standard_normal(int(RATE * rng.uniform(0.5, 1.5)))
        soundfile.write(audio / f"{i}.flac", sound, RATE)
        split = "held_out" if i % 5 == 4 else "train"
        lines.append({"file_name": f"{i}.flac", "caption": SAID[i % 3], "split": split})
    (audio / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def start(given, workdir, count):
    workdir.mkdir(exist_ok=True)
    settings = {
        "model": given / "model",
        "audio": given / "audio",
        "workdir": workdir,
        "seconds": 0.64,
        "windows": 0,
        "chunk": CHUNK,
    }
    command = [sys.executable, "-m", "experiments.encode_corpus"]
    command += [f"--config.{name}={value}" for name, value in settings.items()]
    if count > 1:
        command += [f"--config.hosts.coordinator=127.0.0.1:{free_port()}"]
        command += [f"--config.hosts.count={count}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
    return [
        subprocess.Popen(
            [*command, *([f"--config.hosts.index={i}"] if count > 1 else [])],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""} | cache,
            stdout=(workdir / f"log {i}").open("w"),
            stderr=subprocess.STDOUT,
        )
        for i in range(count)
    ]


def finish(given, workdir, count):
    """The rows of the dataset that they leave; every one must end well."""
    for i, process in enumerate(start(given, workdir, count)):
        assert process.wait(300) == 0, (workdir / f"log {i}").read_text()[-3000:]
    return list(dataset.read_rows(workdir / "dataset"))


def same(got, wanted):
    """Whether two datasets have the same rows, bit by bit."""
    assert [row.id for row in got] == [row.id for row in wanted]
    for one, other in zip(got, wanted, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def undisturbed(given, tmp_path_factory):
    """The dataset of one process, and the seconds that one and two take."""
    found, seconds = {}, {}
    for count in (1, 2):
        for _ in range(2):  # the first one compiles
            began = time.monotonic()
            found[count] = finish(given, tmp_path_factory.mktemp("whole") / "out", count)
            seconds[count] = time.monotonic() - began
    same(found[1], found[2])
    return found[1], seconds


@pytest.fixture(scope="module")
def seen():
    """Of each kill, how many chunks were finished, and how many there are."""
    return []


def marks(workdir):
    """When each finished chunk was written."""
    return {path: path.stat().st_mtime_ns for path in (workdir / "chunks").glob("*.safetensors")}


def wait_for(workdir, chunks, running):
    """Returns when so many are finished: most of a run's time goes into its start."""
    while len(marks(workdir)) < chunks:
        assert all(process.poll() in (None, 0) for process in running)
        time.sleep(0.001)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", range(TIMES))
def test_killed_at_any_moment_it_goes_on_to_the_same_dataset(
    tmp_path, given, undisturbed, seen, seed, count
):
    rng = np.random.default_rng([seed, count])
    wanted, seconds = undisturbed
    workdir = tmp_path / "out"
    running = start(given, workdir, count)
    if seed % 2:
        wait_for(workdir, rng.integers(1, FILES // CHUNK), running)
    else:
        time.sleep(rng.uniform(0.3, 1.0) * seconds[count])  # before that Python is still starting
    for process in running:
        process.send_signal(signal.SIGKILL)
    for process in running:
        assert process.wait(60) in (0, -signal.SIGKILL)
    kept = marks(workdir)
    same(finish(given, workdir, count), wanted)
    after = marks(workdir)
    assert {path: after[path] for path in kept} == kept  # nothing was encoded again
    assert not list(workdir.rglob("*.part"))
    seen.append((len(kept), len(after)))


def test_some_were_killed_between_two_chunks(seen):
    if len(seen) < 2 * TIMES:
        pytest.skip("not all kills were run")
    assert any(0 < kept < whole for kept, whole in seen), seen


@pytest.mark.parametrize("killed", [0, 1])
def test_the_other_of_a_killed_process_ends_and_a_new_start_finishes(
    tmp_path, given, undisturbed, killed
):
    workdir = tmp_path / "out"
    both = start(given, workdir, 2)
    wait_for(workdir, 1, both)
    both[killed].kill()
    began = time.monotonic()
    assert both[1 - killed].wait(180) != 0
    assert time.monotonic() - began < 180
    assert not (workdir / "dataset").exists()
    status = json.loads((workdir / "status" / f"{1 - killed:05d}.json").read_text())
    assert status["state"] != "finished"
    same(finish(given, workdir, 2), undisturbed[0])
