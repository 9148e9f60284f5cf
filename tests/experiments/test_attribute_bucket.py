"""The entry point where the corpus is a dataset in a bucket, and so is the workdir."""

import json
import subprocess
import sys

import pytest
from etils.epath.backend import fsspec_backend

from experiments import attribute
from tda_jax import places
from tda_jax.attribution import prepare
from tda_jax.errors import InputError
from tests.experiments import arrays_card
from tests.experiments.test_attribute_units import card, made  # noqa: F401  (a fixture)

CORPUS, WORKDIR = "gs://bucket/corpora/data", "gs://bucket/runs/first"


def up(bucket, folder, name):
    """Copies a folder to a bucket, as any tool of the bucket's would."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        bucket.write(f"{name}/{path.relative_to(folder)}", path.read_bytes(), None)


@pytest.mark.slow
def test_the_entry_point_reads_and_writes_a_bucket(made, tmp_path, bucket):  # noqa: F811
    attribute.run(card(made, tmp_path / "here"))
    up(bucket, made / "data", "corpora/data")
    flags = arrays_card.arguments(card(made, WORKDIR, corpus=CORPUS, cache=str(tmp_path)))
    command = [sys.executable, "-m", "experiments.attribute", "--config=configs/arrays.py", *flags]
    done = subprocess.run(
        command, cwd=arrays_card.ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"wrote {WORKDIR}/summary.json" in done.stdout
    names = {name.removeprefix("runs/first/") for name in bucket.objects if "runs/" in name}
    folder = f"queries/{prepare.slug('short')}"
    derived = {f"{folder}/{name}" for name in ("scores.parquet", "distribution.png", "top.png")}
    assert names >= {"summary.json", "status/00000.json", f"{folder}/scores.csv"} | derived
    assert any(name.startswith("status/00000/events.out.tfevents") for name in names)
    status = json.loads(places.read(places.place(WORKDIR) / "status" / "00000.json"))
    assert status["state"] == "finished"
    there = bucket.objects[f"runs/first/{folder}/scores.csv"].content
    assert there == (tmp_path / "here" / folder / "scores.csv").read_bytes()


def test_arrays_of_a_bucket_are_refused(made, bucket):  # noqa: F811
    up(bucket, made / "synthetic" / "corpus", "corpora/arrays")
    config = card(made, WORKDIR, corpus="gs://bucket/corpora/arrays")
    with pytest.raises(InputError, match=r"gs://bucket/corpora/arrays: no dataset there"):
        attribute.run(config)
    assert not any("runs/" in name for name in bucket.objects)


@pytest.mark.parametrize("name", ["corpus", "queries"])
def test_a_corpus_of_another_kind_of_bucket_is_refused(made, name):  # noqa: F811
    with pytest.raises(InputError, match=f"{name} = 's3://bucket/x': datasets are read from gs://"):
        attribute.run(card(made, WORKDIR, **{name: "s3://bucket/x"}))


def test_what_is_made_needs_a_folder(bucket):
    with pytest.raises(InputError, match="is in a bucket, and what is made without"):
        attribute.run(arrays_card.shrunk(WORKDIR))


def test_a_bucket_that_refuses_ends_the_run_before_its_work(made, bucket):  # noqa: F811
    bucket.refusing = True
    refused = rf"{WORKDIR}/status/00000.json: cannot be written .*Check the address"
    with pytest.raises(InputError, match=refused):
        attribute.main(card(made, WORKDIR))
    assert not any("fisher" in line for line in bucket.asked)


def test_without_gcsfs_its_name_is_told(made, bucket, monkeypatch):  # noqa: F811
    up(bucket, made / "data", "corpora/data")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    fsspec_backend._get_filesystem.cache_clear()  # of a test before
    with pytest.raises(InputError, match=rf"{CORPUS}: .*gcsfs.*; pip install 'tda_jax\[gcs\]'"):
        attribute.run(card(made, WORKDIR, corpus=CORPUS))
