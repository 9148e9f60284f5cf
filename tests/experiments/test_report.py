"""The entry point: what it writes, what it never copies, and what it refuses."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from experiments import demo, report
from tda_jax.errors import InputError
from tda_jax.report import pictures, players
from tests.experiments import cards, demo_card
from tests.report import saved
from tests.report.html_tree import parse


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The settings of a card with everything that a report can be made of."""
    return saved.write_all(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def made(given, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("report")
    report.run(saved.card(workdir, **given), saved.silent)
    return workdir


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_page_and_its_files_are_written(made):
    assert {p.name for p in made.iterdir()} == {"index.html", "audio", "pictures"}
    names = [p.name for p in (made / "audio").iterdir()]
    assert all(re.fullmatch(r"[0-9a-f]{24}\.mp3", name) for name in names)
    tree = parse((made / "index.html").read_text())
    used = {node.attributes["src"] for tag in ("img", "audio") for node in tree.all(tag)}
    assert used == {str(p) for p in files(made)} - {"index.html"}


def test_tracks_are_shared_between_queries(made):
    tree = parse((made / "index.html").read_text())
    shown = [node.attributes["src"] for node in tree.all("audio")]
    assert len(set(shown)) < len(shown)


def test_what_cannot_be_heard_is_said_where_its_player_would_be(made):
    tree = parse((made / "index.html").read_text())
    reasons = [p.words() for p in tree.all("p", class_="missing")]
    assert any(r.startswith("No player: broken.wav: cannot be read as audio") for r in reasons)
    assert any(r.startswith("No player: missing.wav: cannot be read") for r in reasons)
    assert len(reasons) == 4  # both of them for each query


def test_no_folder_of_this_machine_is_named(made, given):
    text = (made / "index.html").read_text()
    for folder in (made, *given.values()):
        assert str(folder) not in text


def test_a_second_run_makes_nothing_again(made, given, monkeypatch):
    before = files(made)
    stamps = {p: p.stat().st_mtime_ns for p in made.rglob("*.*") if p.suffix != ".html"}
    monkeypatch.setattr(players, "write_mp3", None)
    monkeypatch.setattr(pictures, "draw", None)
    report.run(saved.card(made, **given), saved.silent)
    assert files(made) == before
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())


def test_the_same_input_gives_the_same_report(made, given, tmp_path):
    report.run(saved.card(tmp_path, **given), saved.silent)
    assert files(tmp_path) == files(made)


def test_a_query_that_is_a_file_is_played_from_its_own_folder(given, tmp_path):
    queries = tmp_path / "queries"
    queries.mkdir()
    soundfile.write(queries / "query.wav", 0.3 * np.sin(np.arange(16000) / 7), 16000)
    asked = {**given, "generated": "", "query_audio": str(queries)}
    report.run(saved.card(tmp_path / "with", **asked), saved.silent)
    report.run(saved.card(tmp_path / "without", **asked | {"query_audio": ""}), saved.silent)
    texts = [(tmp_path / name / "index.html").read_text() for name in ("with", "without")]
    assert all("An audio file, piece 001" in text and "a hum" in text for text in texts)
    said = "No player: no folder of the queries&#39; audio was given."
    assert [said in text for text in texts] == [False, True]


def test_a_query_that_has_the_id_of_a_track_is_not_that_track(tmp_path):
    folder = tmp_path / "attributed"
    saved.write_results(folder, ((0, 0), (1, None)))
    path = folder / "summary.json"
    content = json.loads(path.read_text())
    content["queries"][1]["id"] = "t07"  # an audio file of its own, and a member of the corpus
    path.write_text(json.dumps(content))
    report.run(saved.card(tmp_path / "out", attributed=str(folder)), saved.silent)
    tree = parse((tmp_path / "out" / "index.html").read_text())
    assert len([p for p in tree.all("p") if p.words() == "The query itself"]) == 1


def test_pieces_of_another_run_are_refused(given, tmp_path):
    other = tmp_path / "generated"
    shutil.copytree(given["generated"], other)
    path = other / "summary.json"
    path.write_text(path.read_text().replace("latent of", "other latent of"))
    asked = {**given, "generated": str(other)}
    with pytest.raises(InputError, match="'piece 001' is not the one that was attributed"):
        report.run(saved.card(tmp_path / "out", **asked), saved.silent)


def test_without_audio_nothing_is_copied(given, tmp_path):
    report.run(saved.card(tmp_path, **given), saved.silent)
    assert (tmp_path / "audio").is_dir()
    report.run(saved.card(tmp_path, no_audio=True, **given), saved.silent)
    assert {str(p) for p in files(tmp_path)} == {"index.html"}  # what an earlier report had, too
    tree = parse((tmp_path / "index.html").read_text())
    assert list(tree.all("audio")) == list(tree.all("img")) == []
    assert "made with --no-audio" in tree.one("p", class_="note").words()
    assert list(tree.all("p", class_="missing")) == []


def test_an_earlier_page_stays_until_a_new_one_is_whole(given, tmp_path, monkeypatch):
    report.run(saved.card(tmp_path, **given), saved.silent)
    before = files(tmp_path)

    def fails(_):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(report.page, "render", fails)
    with pytest.raises(RuntimeError, match="in the middle"):
        report.run(saved.card(tmp_path, **given | {"top": 3}), saved.silent)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("without", "section", "said"),
    [
        ((), True, False),
        (("truth",), False, True),
        (("evaluation",), True, False),
        (("evaluation", "truth"), False, False),
    ],
)
def test_that_scores_were_not_held_against_retraining_is_said(
    given, tmp_path, without, section, said
):
    changes = given | dict.fromkeys(without, "") | {"no_audio": True}
    report.run(saved.card(tmp_path, **changes), saved.silent)
    tree = parse((tmp_path / "index.html").read_text())
    assert ("Against retraining" in [h.words() for h in tree.all("h2")]) == section
    assert [p.words() for p in tree.all("p", class_="untested")] == said * [
        "These scores were not held against retraining here: "
        "python -m experiments.truth --config=configs/truth_demo.py does so."
    ]


def test_the_demo_gives_its_report_what_retraining_says(tmp_path):
    config = demo_card.card(tmp_path)
    assert demo._report(config, tmp_path).truth == ""
    path = saved.write_truth(tmp_path, saved.truth())
    asked = demo._report(config, tmp_path)
    assert asked.truth == str(path)
    report.refuse(asked)


def test_excerpts_have_the_length_that_is_asked_for(given, tmp_path):
    report.run(saved.card(tmp_path, seconds=1.0, top=2, **given), saved.silent)
    tree = parse((tmp_path / "index.html").read_text())
    lengths = {node.attributes["alt"].split(": ")[-1].split()[0] for node in tree.all("img")}
    assert lengths <= {"1.0", "1.1"}
    assert len(list(tree.all("li", class_="track"))) == 4


def test_files_are_found_by_the_folders_metadata_where_tables_name_none(given, tmp_path):
    saved.write_results(tmp_path / "attributed", queries=((0, 0),), extra=False)
    changes = {"attributed": str(tmp_path / "attributed"), "audio": given["audio"]}
    report.run(saved.card(tmp_path / "report", **changes), saved.silent)
    tree = parse((tmp_path / "report" / "index.html").read_text())
    assert len(list(tree.all("audio"))) == 9  # ten tracks and the query; one broken, one missing
    reasons = [p.words() for p in tree.all("p", class_="missing")]
    assert any("metadata.jsonl has no line whose file can be used" in r for r in reasons)
    assert "the noise in the query’s direction was not measured" in tree.words()


def test_a_file_outside_the_folder_is_not_opened(given, tmp_path, monkeypatch):
    entry = [{**m, "file_name": "../secret.wav"} for m in saved.metadata()]
    monkeypatch.setattr(saved, "metadata", lambda: entry)
    saved.write_results(tmp_path / "attributed", queries=((0, 0),))
    changes = {"attributed": str(tmp_path / "attributed"), "audio": given["audio"]}
    report.run(saved.card(tmp_path / "report", **changes), saved.silent)
    tree = parse((tmp_path / "report" / "index.html").read_text())
    assert list(tree.all("audio")) == []
    assert "leads out of the folder of audio" in tree.words()


def test_the_command_says_where_the_page_is(given, tmp_path):
    settings = [f"--config.{name}={value}" for name, value in given.items()]
    command = [sys.executable, "-m", "experiments.report", "--config=configs/report.py"]
    command += [*settings, f"--config.workdir={tmp_path}", "--no-audio"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=cards.ROOT, check=True)
    assert found.stdout == f"2 queries, 0 excerpts; open {tmp_path}/index.html\n"
    assert {str(p) for p in files(tmp_path)} == {"index.html"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attributed": ""}, "no results are given; give --config.attributed=DIR"),
        ({"attributed": "/nowhere"}, "/nowhere/summary.json: cannot be read"),
        ({"audio": "/nowhere"}, "/nowhere: no such folder"),
        ({"generated": "/nowhere"}, "/nowhere/summary.json: cannot be read"),
        ({"evaluation": "/nowhere.json"}, "/nowhere.json: cannot be read"),
        ({"preflight": "/nowhere.json"}, "/nowhere.json: cannot be read"),
        ({"truth": "/nowhere.json"}, "/nowhere.json: cannot be read"),
        ({"top": 0}, "top = 0; give 1 at least"),
        ({"seconds": 0.0}, "seconds = 0.0; give a length above 0"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(given, tmp_path, changes, message):
    workdir = tmp_path / "report"
    with pytest.raises(InputError, match=re.escape(message)):
        report.run(saved.card(workdir, **given | changes), saved.silent)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("evaluation", '{"note": "", "rows": [{"name": 1}]}', "a row is no method"),
        ("evaluation", '{"rows": []}', "has no 'note'; give the evaluation"),
        ("preflight", '{"verdict": "", "checks": [{}]}', "a check lacks name"),
        ("truth", '{"verdict": []}', "summary.json: has no 'note'; give the truth.json"),
        (
            "truth",
            '{"note": "", "ceiling": {}, "rows": [], "verdict": []}',
            "summary.json: ceiling has no 'mean'",
        ),
        ("generated", '{"pieces": [{"id": "x"}], "made_of": {}}', "a piece lacks id"),
    ],
)
def test_other_json_is_refused(given, tmp_path, name, content, message):
    path = tmp_path / "summary.json"
    path.write_text(content)
    value = tmp_path if name == "generated" else path
    with pytest.raises(InputError, match=re.escape(message)):
        report.run(saved.card(tmp_path / "report", **given | {name: str(value)}), saved.silent)


def test_a_report_can_be_moved(made, tmp_path):
    shutil.copytree(made, tmp_path / "moved")
    tree = parse((tmp_path / "moved" / "index.html").read_text())
    for tag in ("img", "audio"):
        for node in tree.all(tag):
            assert (tmp_path / "moved" / node.attributes["src"]).is_file()
