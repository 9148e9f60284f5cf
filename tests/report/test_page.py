"""What the page says: the numbers of the tables, names as they are, and a sound structure."""

import base64
import hashlib
import math
import re

import pytest

from experiments import report
from tda_jax.report.words import number
from tests.report import saved
from tests.report.html_tree import parse

TOP = 7


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The report, its page as a tree, and the tables that it is of."""
    folder = tmp_path_factory.mktemp("page")
    given = saved.write_all(folder)
    tables = saved.write_results(folder / "attributed")
    path = report.run(saved.card(folder / "report", top=TOP, **given), saved.silent)
    return path, parse(path.read_text(encoding="utf-8")), tables


def sections(tree):
    return list(tree.all("section", class_="query"))


def rows(tree):
    """Cells of a table's body, by row."""
    (body,) = tree.all("tbody")
    return [[c.words() for c in r.children if not isinstance(c, str)] for r in body.all("tr")]


def value(node, kind):
    return float(node.one("data", class_=kind).attributes["value"])


def test_the_highest_tracks_have_the_numbers_of_their_table(made):
    _, tree, tables = made
    for section, (query, table) in zip(sections(tree), tables.items(), strict=True):
        shown = list(section.all("li", class_="track"))
        assert len(shown) == TOP
        for i, one in enumerate(shown):
            row = {name: column[i] for name, column in table.columns.items()}
            assert value(one, "score") == row["score"]
            assert f"Score {number(row['score'])} ±" in one.words()
            assert value(one, "p") == row["p_value"]
            error = math.sqrt(row["standard_error"] ** 2 + row["direction_error"] ** 2)
            assert value(one, "error") == pytest.approx(error, rel=1e-12)
            about = {d.one("dt").words(): d.one("dd").text() for d in one.one("dl").all("div")}
            assert about["Id"] == row["id"]
            assert about["label"] == saved.EVIL
            assert float(about["Log-mel similarity"].replace("−", "-")) == pytest.approx(
                row["log_mel_similarity"], abs=5e-4
            )
            rank = one.one(class_="rank").words()
            assert rank == (f"Rank {row['rank']}" if row["member"] else "No rank–")
            marks = [m.words() for m in one.all("p", class_="mark")]
            wanted = ["The query itself"] if row["id"] == query else []
            wanted += [] if row["member"] else ["Decoy: the model was never trained on it"]
            assert marks == wanted
    assert len(list(tree.all("li", class_="is-decoy"))) >= 2


def test_names_are_shown_as_they_are(made):
    path, tree, _ = made
    assert len(list(tree.all("script"))) == 1
    assert "<b>" not in path.read_text(encoding="utf-8")
    titles = [h.words() for h in sections(tree)[0].all(class_="named")]
    for name, _, title in saved.NAMES:
        assert any(" ".join((title or name).split()) in shown for shown in titles)
    heads = [section.one("h2").text() for section in sections(tree)]
    assert heads == ["A title", f"“slow {saved.EVIL}”"]
    captions = [c.words() for c in sections(tree)[0].all("p", class_="caption")]
    assert [c for c in captions if c in ("one", "two")] == ["one", "two"]


def test_the_structure_is_sound(made):
    _, tree, _ = made
    assert tree.one("html").attributes["lang"] == "en"
    assert tree.one("h1").words() == "Attribution report"
    assert len(list(tree.all("main"))) == 1
    level = 0
    for node in tree.all():
        if re.fullmatch(r"h[1-6]", node.tag):
            assert int(node.tag[1]) <= level + 1, f"{node.tag} {node.words()} follows h{level}"
            level = int(node.tag[1])
            assert node.words()
    ids = [node.attributes["id"] for node in tree.all() if "id" in node.attributes]
    assert len(set(ids)) == len(ids)
    for node in tree.all():
        for name in (node.attributes.get("aria-labelledby") or "").split():
            assert name in ids
        if node.attributes.get("href", "").startswith("#"):
            assert node.attributes["href"][1:] in ids
        assert not any(name.startswith("on") or name == "style" for name in node.attributes)


def test_everything_that_is_seen_or_heard_has_words(made):
    path, tree, _ = made
    images, audio = list(tree.all("img")), list(tree.all("audio"))
    assert len(images) == len(audio) == 2 * (TOP + 1 - 2)  # of 2 files nothing can be heard
    for image in images:
        assert image.attributes["alt"].startswith("Spectrogram of ")
        assert image.attributes["loading"] == "lazy"
        assert (path.parent / image.attributes["src"]).is_file()
    for one in audio:
        assert one.attributes["aria-label"].startswith("Excerpt of ")
        assert one.attributes["preload"] == "none"
        assert "controls" in one.attributes
        assert (path.parent / one.attributes["src"]).is_file()
    for drawing in tree.all("svg"):
        if drawing.attributes.get("aria-hidden") != "true":
            assert drawing.attributes["role"] == "img"
            assert drawing.one("title").words()
            assert drawing.one("desc").words()
    for region in tree.all(class_="scroll"):
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["aria-label"]


def test_nothing_is_asked_of_a_network(made):
    path, tree, _ = made
    for file in path.parent.rglob("*"):
        if file.is_file():
            assert not re.search(rb"(https?:|//[a-z0-9-]+\.[a-z])", file.read_bytes()), file
    metas = [m.attributes for m in tree.all("meta")]
    (policy,) = [m["content"] for m in metas if "http-equiv" in m]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'"
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        digest = hashlib.sha256(tree.one(tag).text().encode()).digest()
        assert parts[name] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert set(parts) == {
        *("default-src", "img-src", "media-src", "style-src", "script-src"),
        *("base-uri", "form-action"),
    }


def test_what_a_score_means_is_said(made):
    _, tree, _ = made
    said = {d.one("dt").words(): d.one("dd").words() for d in tree.one(class_="guide").all("div")}
    assert said["Score"].startswith("The rise of the track’s loss when the query is forgotten.")
    assert "Higher is more support." in said["Score"]
    assert said["p-value"].startswith("The share of decoys that score as high.")
    assert "with 6 decoys no p-value is below 0.14" in said["p-value"]
    assert "not a share of authorship" in said["What a score is not"]
    assert "Do not sum the scores" in said["What a score is not"]
    assert "6 decoys are few" in tree.one(class_="guide").one("li").words()


def test_the_evidence_is_shown(made):
    _, tree, _ = made
    evaluation = tree.one("section", **{"aria-labelledby": "evaluation-title"})
    missing = "not measured"
    assert rows(evaluation) == [
        ["Unlearning", "7.5", "0.91 0.87 to 0.95", missing, missing],
        ["Chance", *[missing] * 4],
    ]
    explained = [d.words() for d in evaluation.one("dl").all("dd")]
    assert len(explained) == 4
    assert all(explained)
    preflight = tree.one("section", **{"aria-labelledby": "preflight-title"})
    assert [li.words() for li in preflight.all("li")] == [
        "Passed Losses fall. by 12 %",
        f"Failed Latents fit. {saved.EVIL}",
        "Undecided Decoys match. too few",
    ]
    assert "Something is wrong." in preflight.words()


def test_what_retraining_says_is_shown(made):
    _, tree, _ = made
    section = tree.one("section", **{"aria-labelledby": "truth-title"})
    assert section.one("h2").words() == "Against retraining"
    assert rows(section) == [
        ["The demo's scores", "0.42 0.20 to 0.61", ""],
        ["TRAK", "0.50", ""],  # not Trak
        [saved.EVIL, "−0.10 −0.25 to 0.05", ""],
        ["Chance", "–", ""],
    ]
    (ceiling,) = section.one("tfoot").all("tr")
    assert ceiling.words() == "Noise ceiling 0.75 0.70 to 0.80"
    note, explained, *_ = (p.words() for p in section.all("p"))
    assert note == f"Of 40 models, 11 queries {saved.EVIL}"
    assert explained.startswith("The LDS, the linear datamodelling score, is the rank correlation")
    assert "1 is perfect, 0 is chance, and the noise ceiling is the highest" in explained
    assert [li.words() for li in section.all("li")] == [
        "The scores are above chance.",
        f"TRAK is {saved.EVIL}.",
    ]
    (own,) = section.all("tr", class_="ours")
    assert own.one("th").words() == "The demo's scores"


def test_bars_of_agreement_are_drawn(made):
    _, tree, _ = made
    section = tree.one("section", **{"aria-labelledby": "truth-title"})
    axis = section.one("thead").one("svg")
    ticks = {t.words(): t.attributes["x"] for t in axis.all("text")}
    own, _, below, _, top = drawings = list(section.all("svg", class_="agreement"))
    kinds = [d.attributes["class"].split()[1] for d in drawings]
    assert kinds == ["ours", *["rival"] * 3, "limit"]
    for drawing in drawings:  # the marks that all rows share
        assert drawing.one("line", class_="zero").attributes["x1"] == ticks["0"]
        mark = drawing.one("line", class_="ceiling").attributes
        assert mark["x1"] == mark["x2"] == top.one("line", class_="ceiling").attributes["x1"]
    zero, unit = share(ticks["0"]), (share(mark["x1"]) - share(ticks["0"])) / 0.75
    for drawing, (mean, low, high) in ((own, (0.416, 0.2, 0.61)), (below, (-0.1, -0.25, 0.05))):
        bar = drawing.one("rect").attributes
        assert share(bar["x"]) == pytest.approx(zero + unit * min(mean, 0), abs=0.03)
        assert share(bar["width"]) == pytest.approx(unit * abs(mean), abs=0.03)
        along, *ends = (line.attributes for line in drawing.one(class_="error").all("line"))
        wanted = [pytest.approx(zero + unit * x, abs=0.03) for x in (low, high)]
        assert [share(along["x1"]), share(along["x2"])] == wanted
        assert [share(end["x1"]) for end in ends] == wanted
        assert [share(end["x2"]) for end in ends] == wanted
    assert [len(list(d.all("rect"))) for d in drawings] == [1, 1, 1, 0, 0]
    assert [len(list(d.all(class_="error"))) for d in drawings] == [1, 0, 1, 0, 1]


def share(text):
    """A place on a chart, in per cent."""
    assert text.endswith("%")
    return float(text[:-1])


def test_what_made_it_is_shown(made):
    _, tree, _ = made
    end = tree.one("section", class_="provenance")
    lines = {d.one("dt").words(): d.one("dd").words() for d in end.all("div")}
    assert lines["checkpoint"] == "ab" * 32
    assert lines["method"] == "linearised"
    assert lines["rate"] == "–"
    assert lines["linearised sweep"] == "1 min 15 s"
    assert {"jax", "jinja2", "libsndfile"} <= set(lines)
    assert "its loss is not finite" in tree.one("nav").words()
    (unscored,) = [d for d in sections(tree)[0].all("dd") if d.words() == "a reason <9>"]
    assert unscored.parent.one("dt").words() == "t09"
    generated = sections(tree)[1].words()
    assert "made with sampler dpm, steps 3, guidance 2.5, seed 0." in generated


def test_the_page_stays_light(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "DECOYS", 20_000)
    saved.write_results(tmp_path / "attributed", queries=((0, 0),))
    path = report.run(saved.card(tmp_path, attributed=str(tmp_path / "attributed")), saved.silent)
    assert path.stat().st_size < 80_000
    assert len(list(parse(path.read_text()).all("li", class_="track"))) == 10
