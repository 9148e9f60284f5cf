"""The entry point on its shrunk default card, in this process and as one that is killed."""

import csv
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from experiments import attribute
from tda_jax import store
from tda_jax.attribution import prepare, sizes
from tda_jax.corpus.arrays import read_arrays
from tda_jax.evaluation.ranking import auc
from tests.experiments import arrays_card

pytestmark = pytest.mark.slow  # a minute of compiling; `.ci/run` runs it
QUERIES = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The workdir of a shrunk default run, its card, what it returned and the stages it showed."""
    workdir, stages = tmp_path_factory.mktemp("default"), []
    config = arrays_card.shrunk(workdir)
    result = attribute.run(config, lambda *event: stages.append(event))
    return workdir, result, stages


def rows_of(folder):
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def number(cell):
    return float(cell) if cell else math.nan


def query_folders(workdir):
    return sorted((workdir / "queries").iterdir())


def stamps(workdir):
    """When each file that is computed, and not derived, was written."""
    derived = {"scores.csv", "scores.parquet", "distribution.png", "top.png", "summary.json"}
    files = [p for p in workdir.rglob("*") if p.is_file() and p.name not in derived]
    return {p: p.stat().st_mtime_ns for p in files}


def test_the_default_makes_what_it_needs_and_writes_everything(made):
    workdir, result, stages = made
    summary = json.loads((workdir / "summary.json").read_text())
    assert (summary["tracks"], summary["decoys"]) == (arrays_card.MEMBERS, 8)
    assert len(summary["queries"]) == len(result["queries"]) == QUERIES
    assert summary["skipped_queries"] == []
    assert summary["unscored_tracks"] == 0
    assert summary["settings"]["corpus_size"] == arrays_card.MEMBERS
    assert summary["fisher"] == {"tracks": 12, "draws": 24, "left_out": []}
    assert set(summary["fingerprints"]) == {"checkpoint", "corpus", "queries", "code", "versions"}
    assert summary["stages"]["linearised sweep"]["pairs"] == arrays_card.TRACKS * 40
    assert summary["stages"]["linearised sweep"]["bytes"] > 0
    shown = ["training", "predicting memory", "Fisher information", "queries unlearned"]
    shown += ["linearised sweep", "tables and figures"]
    assert list(dict.fromkeys(stage for stage, _, _ in stages)) == shown
    assert set(shown) <= set(summary["seconds"])
    assert any("decoys are few" in line for line in summary["warnings"])
    for query in summary["queries"]:
        folder = workdir / query["folder"]
        assert {p.name for p in folder.iterdir()} >= {"scores.csv", "scores.parquet", "top.png"}
        assert (folder / "distribution.png").read_bytes().startswith(b"\x89PNG")
        assert query["predicted_rise"] == pytest.approx(0.1)


def test_the_plan_of_a_finished_run_leaves_nothing_and_touches_nothing(made, capsys):
    workdir, _, _ = made
    before = stamps(workdir)
    attribute.run(arrays_card.shrunk(workdir, plan=True), lambda *_: None)
    content = json.loads((workdir / "plan.json").read_text())
    assert {stage["left"] for stage in content["stages"].values()} == {0}
    assert content["stages"]["linearised sweep"]["draws"] == arrays_card.TRACKS * 40
    assert content["hours"] == 0
    assert min(content[name] for name in ("batch", "fisher_batch", "queries_per_pass")) >= 1
    assert "0 hours on 1 process(es)" in capsys.readouterr().out
    assert stamps(workdir).items() >= before.items()


def test_a_plan_for_several_processes_is_of_the_sizes_that_they_take(made):
    workdir, _, _ = made
    config = arrays_card.shrunk(workdir, plan=True, batch=0, queries_per_pass=0)
    config.hosts.count = 2
    attribute.run(config, lambda *_: None)
    content = json.loads((workdir / "plan.json").read_text())
    assert content["processes"] == 2
    assert {n: content[n] for n in sizes.Most._fields} == sizes.ON_CPU._asdict() | {
        "queries_per_pass": 2
    }
    assert content["stages"]["linearised sweep"]["bytes"] > 0


def test_the_table_holds_what_the_stores_say(made):
    workdir, _, _ = made
    corpus = read_arrays(workdir / "synthetic" / "corpus")
    summary = json.loads((workdir / "summary.json").read_text())
    for query in summary["queries"]:
        folder = workdir / query["folder"]
        kept = store.load_store(folder / "sweep")
        terms = {name: x.astype(np.float64) for name, x in store.read(kept).items()}
        draws = query["rate"] * terms["a"] + query["rate"] ** 2 * terms["b"]
        score = dict(zip(kept.ids, draws.mean((1, 2)), strict=True))
        error = dict(zip(kept.ids, np.sqrt((draws.var(1, ddof=1) / 4).sum(1)) / 10, strict=True))
        before = dict(zip(kept.ids, terms["loss"].mean((1, 2)), strict=True))
        rows = rows_of(folder)
        assert [row["id"] for row in rows] == sorted(kept.ids, key=lambda i: -score[i])
        rank = 0
        for row in rows:
            at = corpus.ids.index(row["id"])
            assert row["member"] == str(bool(corpus.members[at])).lower()
            rank += corpus.members[at]
            assert row["rank"] == (str(rank) if corpus.members[at] else "")
            assert number(row["score"]) == pytest.approx(score[row["id"]], rel=1e-9)
            assert number(row["standard_error"]) == pytest.approx(error[row["id"]], rel=1e-9)
            assert number(row["loss_before"]) == pytest.approx(before[row["id"]], rel=1e-9)
            rise = number(row["loss_after"]) - number(row["loss_before"])
            assert rise == pytest.approx(score[row["id"]], rel=1e-6)
            assert number(row["odd"]) + number(row["even"]) == pytest.approx(score[row["id"]])
            assert number(row["direction_error"]) > 0
            decoys = [score[i] for i in corpus.ids if not corpus.members[corpus.ids.index(i)]]
            above = sum(s >= score[row["id"]] for s in decoys)
            own = not corpus.members[at]
            assert number(row["p_value"]) == pytest.approx((1 + above - own) / (9 - own))
            assert row["work"] == corpus.metadata[at]["work"]
            assert row["split"] == corpus.metadata[at]["split"]
        ranked = {row["id"]: row["rank"] for row in rows}
        assert ranked[query["id"]] == str(query["self_rank"])
        columns = parquet.read_table(folder / "scores.parquet").to_pydict()
        assert columns["score"] == [number(row["score"]) for row in rows]
        assert columns["rank"] == [int(row["rank"]) if row["rank"] else None for row in rows]


def test_relations_of_the_synthetic_corpus(made):
    workdir, result, _ = made
    for query in result["queries"]:
        rows = [r for r in rows_of(workdir / query["folder"]) if r["id"] != query["id"]]
        (own,) = [
            entry
            for name, entry in zip(*_corpus_metadata(workdir), strict=True)
            if name == query["id"]
        ]

        def scores(member, work, caption, rows=rows, own=own):
            """Of tracks that are members or not, and share work and caption or not."""
            kept = [
                number(r["score"])
                for r in rows
                if r["member"] == member
                and work in (None, r["work"] == own["work"])
                and caption in (None, r["caption"] == own["caption"])
            ]
            return np.array(kept)

        neither = scores("true", False, False)
        wanted = {
            "same work": auc(scores("true", True, False), neither),
            "same caption": auc(scores("true", False, True), neither),
            "members against decoys": auc(scores("true", None, None), scores("false", None, None)),
            "members against decoys of the work": auc(
                scores("true", True, False), scores("false", True, False)
            ),
        }
        assert query["auc"] == pytest.approx(wanted)


def _corpus_metadata(workdir):
    corpus = read_arrays(workdir / "synthetic" / "corpus")
    return corpus.ids, corpus.metadata


def test_a_second_run_computes_nothing_again(made):
    workdir, first, _ = made
    config, before = arrays_card.shrunk(workdir), stamps(workdir)
    tables = {p: (p / "scores.csv").read_bytes() for p in query_folders(workdir)}
    stages = []
    attribute.run(config, lambda *event: stages.append(event))
    assert stamps(workdir) == before
    shown = {"predicting memory", "queries unlearned", "tables and figures"}
    assert {stage for stage, _, _ in stages} == shown
    for folder, content in tables.items():
        assert (folder / "scores.csv").read_bytes() == content
    again = json.loads((workdir / "summary.json").read_text())
    assert {**again, "seconds": 0} == {**json.loads(json.dumps(first)), "seconds": 0}


def test_another_training_is_refused_where_one_lies(made):
    config = arrays_card.shrunk(made[0])
    config.synthetic.steps = 5
    with pytest.raises(ValueError, match=r"synthetic: made from .*steps is 4 there and 5 here"):
        attribute.run(config)


def test_exact_sweep_with_frame_maps_on_folders(made, tmp_path):
    config = arrays_card.folders(tmp_path / "out", made[0], method="exact", frames=True, rate=0.5)
    attribute.run(config)
    folder = tmp_path / "out" / "queries" / prepare.slug("work00-v00")
    after = store.load_store(folder / "sweep")
    before = store.load_store(tmp_path / "out" / "before")
    place = {name: i for i, name in enumerate(before.ids)}
    assert after.ids == before.ids
    losses = [store.read(s)["loss"].astype(np.float64) for s in (before, after)]
    frames = [store.read(s)["frames"].astype(np.float64) for s in (before, after)]
    maps, rows = np.load(folder / "frame_rise.npy"), rows_of(folder)
    assert maps.shape == (arrays_card.TRACKS, 8)
    for row, of_frames in zip(rows, maps, strict=True):
        i = place[row["id"]]
        rise = (losses[1][i] - losses[0][i]).mean()
        assert number(row["score"]) == pytest.approx(rise, rel=1e-9)
        assert number(row["loss_after"]) == pytest.approx(losses[1][i].mean(), rel=1e-9)
        np.testing.assert_array_equal(of_frames, frames[1][i] - frames[0][i])
        assert of_frames.mean() == pytest.approx(rise, rel=1e-3, abs=1e-7)  # nothing is masked
        assert row["odd"] == row["even"] == row["direction_error"] == ""
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["queries"][0]["rate"] == 0.5
    assert "auc" not in summary["queries"][0]


def huge(x):
    """Finite, but the first convolution overflows."""
    return np.sign(x) * np.float32(3e38)


def test_what_is_not_finite_during_the_run_is_named_and_the_rest_goes_on(made, tmp_path, capsys):
    queries, corpus = (arrays_card.copied(made[0], tmp_path / n) for n in ("queries", "corpus"))
    for field in ("latent", "text", "text_mask", "mask"):
        pair = ("work00-v00", "work00-v01")
        arrays_card.change(
            queries,
            field,
            lambda a, p=pair: dict(zip(("bad", "fine"), (a[i] for i in p), strict=True)),
        )
    (queries / "metadata.jsonl").unlink()
    arrays_card.change(queries, "latent", lambda a: a | {"bad": huge(a["bad"])})
    arrays_card.change(corpus, "latent", lambda a: a | {"work01-v02": huge(a["work01-v02"])})
    config = arrays_card.folders(
        tmp_path / "out", made[0], corpus, query_ids="", queries=str(queries)
    )
    result = attribute.run(config)
    assert [query["id"] for query in result["queries"]] == ["fine"]
    (skipped,) = result["skipped_queries"]
    assert skipped["id"] == "bad"
    assert "is not finite" in skipped["reason"]
    (query,) = result["queries"]
    assert query["self_rank"] is None
    assert query["unscored"] == [
        {"id": "work01-v02", "reason": "loss before unlearning is not finite"}
    ]
    assert result["unscored_tracks"] == 1
    left_out = result["fisher"]["left_out"]
    assert left_out == [["work01-v02", d, "non-finite loss or gradient"] for d in range(2)]
    rows = rows_of(tmp_path / "out" / query["folder"])
    assert all(row["score"] for row in rows[:-1])
    assert (rows[-1]["id"], rows[-1]["rank"], rows[-1]["score"]) == ("work01-v02", "", "")
    said = capsys.readouterr()
    assert "skipped query 'bad'" in said.err
    assert "scaling_factor" in said.err
    assert "1 tracks without a score" in said.out


def command(config, *more):
    flags = [*arrays_card.arguments(config), *more]
    return [sys.executable, "-m", "experiments.attribute", "--config=configs/arrays.py", *flags]


def started(config, *more):
    return subprocess.Popen(
        command(config, *more),
        cwd=arrays_card.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bytes(made, tmp_path):
    """Killed as soon as two chunks of the sweep are done, of twenty; then run again."""
    cache = arrays_card.ROOT / ".jax_cache" / "entry"

    def card(name):
        return arrays_card.folders(tmp_path / name, made[0], chunk=1, cache=str(cache))

    undisturbed = started(card("whole"))
    assert undisturbed.wait(300) == 0, undisturbed.stderr.read()[-2000:]
    folder = Path("queries") / prepare.slug("work00-v00")
    done = tmp_path / "cut" / folder / "sweep" / "done"
    killed = started(card("cut"))
    while killed.poll() is None and len(list(done.glob("????????.json"))) < 2:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    partly = store.missing(store.load_store(done.parent))
    assert 0 < len(partly) < arrays_card.TRACKS
    assert not (tmp_path / "cut" / folder / "scores.csv").exists()
    resumed = started(card("cut"))
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err[-2000:]
    wanted = (tmp_path / "whole" / folder / "scores.csv").read_bytes()
    assert (tmp_path / "cut" / folder / "scores.csv").read_bytes() == wanted
    assert f"wrote {tmp_path / 'cut' / 'summary.json'}" in out.splitlines()[-1]
    begun = 100 * (1 - len(partly) / arrays_card.TRACKS)
    assert f"linearised sweep: {begun:3.0f}%" in err


@pytest.mark.slow
def test_two_processes_write_the_tables_of_one(made, tmp_path):
    cache = arrays_card.ROOT / ".jax_cache" / "entry"

    def card(name):
        return arrays_card.folders(tmp_path / name, made[0], cache=str(cache))

    alone = started(card("alone"))
    assert alone.wait(300) == 0, alone.stderr.read()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    both = [
        started(
            card("both"),
            f"--config.hosts.coordinator=127.0.0.1:{port}",
            "--config.hosts.count=2",
            f"--config.hosts.index={i}",
        )
        for i in range(2)
    ]
    for process in both:
        assert process.wait(300) == 0, process.stderr.read()
    assert "2 processes" in both[0].stdout.read()
    assert both[1].stdout.read() == ""  # process 0 speaks for all
    folders = [query_folders(tmp_path / name) for name in ("alone", "both")]
    for one, two in zip(*folders, strict=True):
        assert (one / "scores.csv").read_bytes() == (two / "scores.csv").read_bytes()
    for index in range(2):
        status = json.loads((tmp_path / "both" / "status" / f"{index:05d}.json").read_text())
        assert status["process"] == index
