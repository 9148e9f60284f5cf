"""The demo, shrunk: from nothing to a page, once; and to the same after a kill in any stage."""

import csv
import hashlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import demo, generate
from tda_jax import fingerprint
from tda_jax.audio import reading
from tda_jax.corpus import dataset
from tda_jax.errors import InputError
from tda_jax.training import loop
from tests.experiments import cards, demo_card

pytestmark = pytest.mark.slow  # minutes of compiling; `.ci/run` runs all but the kills
STAGES = (
    "composing and playing",
    "training the VAE",
    "encoding",
    "training the text encoder",
    "training the denoiser",
    "preflight",
    "sampling",
    "Fisher information",
    "losses before",
    "queries unlearned",
    "losses after unlearning",
    "tables and figures",
    "report",
)


def silent(*_):
    pass


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("demo")
    stages = []

    def progress(stage, done, total):
        assert 0 <= done <= total
        if stage not in stages:
            stages.append(stage)

    return workdir, demo.run(demo_card.card(workdir), progress), stages


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_summary_says_what_was_found(ran):
    workdir, found, _ = ran
    assert json.loads((workdir / "summary.json").read_text()) == found
    assert (found["tracks"], found["decoys"], found["queries"]) == (24, 12, 3)
    assert {"self_influence_mean_rank", "relatives_auc", "member_auc"} <= found.keys()
    stages = {"music", "train", "preflight", "generate", "attribute", "evaluate", "report"}
    assert found["seconds"].keys() == stages
    assert (workdir / found["report"]).is_file()


def test_every_stage_shows_progress(ran):
    assert set(STAGES) <= set(ran[2])


def test_figures_are_those_of_the_tables(ran):
    workdir, found, _ = ran
    evaluated = json.loads((workdir / "evaluation.json").read_text())
    works = {
        entry["id"]: entry["work"]
        for entry in map(json.loads, (workdir / "provenance.jsonl").read_text().splitlines())
    }
    ranks, areas = [], []
    for query in evaluated["queries"]:
        folders = (workdir / "attributed" / "queries").iterdir()
        (folder,) = (f for f in folders if f.name.startswith(query))
        rows = rows_of(folder / "scores.csv")
        by_id = {row["id"]: row for row in rows}
        ranks.append(int(by_id[query]["rank"]))
        others = [r for r in rows if r["id"] != query and r["member"] == "true"]
        own = by_id[query]
        kin = [
            float(r["score"])
            for r in others
            if works[r["id"]] == works[query] and r["caption"] != own["caption"]
        ]
        rest = [float(r["score"]) for r in others if works[r["id"]] != works[query]]
        if kin:
            areas.append(np.mean([(a > b) + 0.5 * (a == b) for a in kin for b in rest]))
    assert len({works[q] for q in evaluated["queries"]}) == 2
    assert found["self_influence_mean_rank"] == np.mean(ranks)
    assert found["relatives_auc"] == pytest.approx(np.mean(areas))
    methods = [row["method"] for row in evaluated["rows"]]
    assert methods == [
        "unlearning",
        "log-mel similarity",
        "latent similarity",
        "caption similarity",
        "chance",
    ]


def test_scores_say_where_a_track_came_from(ran):
    workdir, _, _ = ran
    lines = (workdir / "music" / "metadata.jsonl").read_text().splitlines()
    files = {entry["id"]: entry for entry in map(json.loads, lines)}
    for path in (workdir / "attributed" / "queries").glob("*/scores.csv"):
        for row in rows_of(path):
            said = files[row["id"]]
            for name in ("file_name", "caption", "title", "artist"):
                assert row[name] == said[name]
            assert row["member"] == str(said["split"] == "train").lower()


def test_a_second_run_repeats_nothing(ran, monkeypatch):
    workdir, first, _ = ran
    for module, name in ((loop, "train"), (generate, "generate"), (reading, "windows")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("done again"))
    stages = []
    again = demo.run(demo_card.card(workdir), lambda stage, *_: stages.append(stage))
    numbers = {k: v for k, v in first.items() if k != "seconds"}
    assert {k: v for k, v in again.items() if k != "seconds"} == numbers
    assert not {s for s in stages if s.startswith(("training", "sampling", "losses"))}


def test_what_decides_nothing_may_change(ran):
    config = demo_card.card(ran[0], **{"attribute.batch": 4, "report.top": 3, "no_audio": True})
    assert demo._decides(config) == demo._decides(demo_card.card("elsewhere"))
    other = demo_card.card(ran[0], **{"train.vae.batch": 3})
    assert demo._decides(other) != demo._decides(config)


def test_another_demo_in_the_same_folder_is_refused(ran):
    workdir, _, _ = ran
    with pytest.raises(InputError, match=r"made from something else: works is 6 there and 7 here"):
        demo.run(demo_card.card(workdir, works=7), silent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"works": 1}, "works = 1; give 6 to 96"),
        ({"attribute.group": "attention"}, "no parameter group 'attention'"),
        ({"generate.sampler": "euler"}, "sampler = 'euler'"),
        ({"train.sizes.tokens": 2}, "tokens = 2; give 3 at least"),
        ({"train.seconds": 0.65}, "seconds = 0.65 are 65 frames"),
        ({"attribute.strata": 7}, "strata"),
        ({"report.top": 0}, "top = 0"),
        ({"preflight.tracks": 0}, "tracks = 0"),
        ({"queries": 7}, "queries = 7; give 1 to 6"),
        ({"pieces": 0}, "pieces = 0"),
    ],
)
def test_a_card_that_cannot_be_run_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        demo.run(demo_card.card(tmp_path / "new", **changes), silent)
    assert not (tmp_path / "new").exists()


def test_killed_in_every_stage_it_ends_the_same(ran, tmp_path):
    """One run, killed when each stage has begun in turn, then let finish."""
    whole, _, _ = ran
    command = [sys.executable, "-m", "experiments.demo", "--workdir", str(tmp_path / "killed")]
    command += demo_card.flags()
    killed = []
    for stage in STAGES:
        log = tmp_path / "stderr"
        with log.open("wb") as file:
            child = subprocess.Popen(command, cwd=cards.ROOT, stderr=file, stdout=file)
            while child.poll() is None and f"{stage}:" not in log.read_text(errors="replace"):
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
            killed.append(child.wait() == -signal.SIGKILL)
    assert sum(killed) >= len(STAGES) - 2, dict(zip(STAGES, killed, strict=True))
    subprocess.run(command, cwd=cards.ROOT, check=True, capture_output=True)
    assert contents(tmp_path / "killed") == contents(whole)


def contents(workdir):
    """Hashes of what was made, by path; of archives and the dataset, what is in them."""
    kinds = ("music/*", "trained/model/*/*.safetensors", "generated/audio/*", "evaluation.json")
    kinds += ("attributed/queries/*/scores.*",)
    found = {}
    for path in (p for kind in kinds for p in sorted(workdir.glob(kind))):
        found[str(path.relative_to(workdir))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted((workdir / "generated" / "queries").glob("*.npz")):
        with np.load(path) as arrays:
            found[str(path.relative_to(workdir))] = {k: v.tobytes() for k, v in arrays.items()}
    # A record's fields lie in no order of their own.
    for row in dataset.read_rows(workdir / "trained" / "encoded" / "dataset"):
        arrays = (row.mean, row.std, row.log_mel, *(x for x in row.condition if x is not None))
        said = (row.track, row.member, row.start, row.frames, list(row.captions), row.metadata)
        found[f"row {row.id}"] = json.dumps([*said, *(fingerprint.of_array(x) for x in arrays)])
    assert len(found) > 80
    return found
