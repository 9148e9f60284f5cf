"""A run whose workdir is in a bucket: the bits of one in a folder, whatever happens to it."""

import signal
import time

import numpy as np
import pytest

from tda_jax import places, store
from tda_jax.artifact import whole_file
from tda_jax.errors import InputError
from tests.attribution.test_by_unlearning import EXACT, LINEAR, run
from tests.attribution.test_hosts import METHODS, same_bits, start
from tests.attribution.test_hosts import run as together

WORKDIR = "gs://bucket/deep/run"


def arrays_of(got):
    found = {(q, n): x for q, kept in got.sweeps.items() for n, x in store.read(kept).items()}
    return found | ({} if got.before is None else {"before": store.read(got.before)["loss"]})


@pytest.mark.parametrize("settings", [LINEAR, EXACT], ids=METHODS)
def test_a_bucket_holds_what_a_folder_would(tmp_path, bucket, settings):
    wanted, _ = run(tmp_path / "run", settings)
    got, _ = run(places.place(WORKDIR), settings)
    same_bits(arrays_of(got), arrays_of(wanted))
    assert got.directions == wanted.directions
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert {name.removeprefix("deep/") for name in bucket.objects} == files


def test_a_second_run_reads_a_bucket_and_writes_nothing(bucket):
    first, _ = run(places.place(WORKDIR))
    bucket.asked.clear()
    second, _ = run(places.place(WORKDIR))
    same_bits(arrays_of(second), arrays_of(first))
    assert {line.split()[0] for line in bucket.asked} == {"GET"}


def test_what_is_damaged_in_a_bucket_is_named(bucket):
    got, _ = run(places.place(WORKDIR))
    (query, *_) = got.sweeps
    name = next(n for n in sorted(bucket.objects) if "/fields/a/c/" in n)
    content = bytearray(bucket.objects[name].content)
    content[3] ^= 1
    bucket.write(name, bytes(content), None)
    with pytest.raises(InputError, match=rf"{WORKDIR}/.*/fields/a: chunk 0 .* is damaged or lost"):
        store.read(got.sweeps[query])
    with whole_file(places.place(WORKDIR) / "fisher.safetensors") as part:
        part.write_bytes(b"no artifact")
    with pytest.raises(InputError, match=rf"{WORKDIR}/fisher\.safetensors: damaged"):
        run(places.place(WORKDIR))


def test_a_bucket_of_another_run_is_refused(bucket):
    run(places.place(WORKDIR))
    with pytest.raises(InputError, match="fisher_draws is 3 there and 4 here"):
        run(places.place(WORKDIR), LINEAR._replace(fisher_draws=4))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_share_a_bucket(tmp_path, bucket, method):
    for name in ("folder", "bucket"):
        (tmp_path / name).mkdir()
    wanted = together(tmp_path / "folder", 1, method=method)
    same_bits(together(tmp_path / "bucket", 2, method=method, place=WORKDIR), wanted)
    marks = (tmp_path / "bucket" / "computed.txt").read_text().splitlines()
    assert len(marks) == len(set(marks)) == sum("/done/" in name for name in bucket.objects)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment_it_goes_on_in_the_bucket(tmp_path, bucket, seed):
    rng = np.random.default_rng(seed)
    method, count = METHODS[seed % 2], 1 + seed // 2 % 2
    (tmp_path / "whole").mkdir()
    began = time.monotonic()
    wanted = together(tmp_path / "whole", count, method=method)
    seconds = time.monotonic() - began
    running = start(tmp_path, count, method=method, place=WORKDIR)
    time.sleep(rng.uniform(0.3, 1.0) * seconds)
    for process in running:
        process.send_signal(signal.SIGKILL)
    for process in running:
        assert process.wait(60) in (0, -signal.SIGKILL)
    (tmp_path / "out.npz").unlink(missing_ok=True)
    same_bits(together(tmp_path, count, method=method, place=WORKDIR), wanted)
