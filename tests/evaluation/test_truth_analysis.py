"""What is chosen on one half of the subsets is told on the other; rivals are at their best."""

import json

import numpy as np
import pytest

from tda_jax.baselines.contract import Passes
from tda_jax.baselines.similarity import latent_similarity
from tda_jax.baselines.ways import Variant, Way
from tda_jax.evaluation import datamodelling, truth_tables
from tda_jax.evaluation.truth_analysis import ALL, analyse
from tda_jax.report import agreement, truth_figures
from tests.evaluation import truth_made

EMPTY = {
    name: [] for name in ("setting", "value", "against", "pairs", "lds_choosing", "lds_reporting")
}


@pytest.fixture(scope="module")
def corpus():
    return truth_made.corpus()


@pytest.fixture(scope="module")
def levels(corpus):
    kinds = ("generated", "generated", "track", "track")
    return [truth_made.level(corpus, 5, 0, kinds), truth_made.level(corpus, 9, 0, kinds)]


@pytest.fixture(scope="module")
def found(corpus, levels):
    kept = truth_made.removals(corpus)
    return analyse(levels, corpus, kept, truth_made.FAMILIES, truth_made.OWN, draws=200)


def test_the_best_of_a_family_stands_for_it_and_the_best_own_is_the_default(found):
    chosen = {row.family: row.variant for row in found.rows}
    assert chosen["unlearning, exact"] == found.default == "true"
    assert [row.own for row in found.rows] == [True, True, False, False, False]
    assert found.subsets == (20, 20)


def test_one_level_is_not_told_of_twice(corpus, levels):
    kept = truth_made.removals(corpus)
    found = analyse(levels[:1], corpus, kept, truth_made.FAMILIES, truth_made.OWN, draws=20)
    assert list(found.ceilings) == [ALL, "generated queries", "track queries"]


def test_figures_are_those_of_the_reporting_half(found, corpus, levels):
    kept = truth_made.removals(corpus)
    _, reporting = datamodelling.halves(len(kept))
    for row in found.rows:
        for part, chosen in ((ALL, levels), ("9 updates", levels[1:])):
            scores = np.concatenate([x.scored.scores[row.variant] for x in chosen])
            losses = np.concatenate([x.losses for x in chosen], axis=2)
            told = datamodelling.predicted(scores[None][:, :, corpus.members], kept[reporting])
            lds = datamodelling.lds(told, losses[:, reporting].mean(0))[0]
            lds = np.nan_to_num(lds)
            assert row.parts[part].lds.mean == pytest.approx(lds.mean())
        family, first, second = found.variants[row.variant]
        assert family == row.family
        assert second == pytest.approx(row.parts[ALL].lds.mean)
        assert first != second


def test_truth_reaches_the_ceiling_and_noise_nothing(found):
    rows = {row.family: row.parts[ALL] for row in found.rows}
    top = found.ceilings[ALL]
    assert rows["unlearning, exact"].lds.high > top.low
    assert rows["unlearning, exact"].partial.low > 0  # more than the works that it shares
    assert rows["chance"].lds.low < 0 < rows["chance"].lds.high
    assert rows["a rival"].behind.low > 0
    assert rows["unlearning, exact"].behind.mean == 0


def test_only_unlearning_can_be_the_default(corpus, levels):
    swapped = {**truth_made.FAMILIES, "true": "a rival", "rival": "another"}
    kept = truth_made.removals(corpus)
    other = analyse(levels, corpus, kept, swapped, truth_made.OWN, draws=100)
    assert other.default == "half true"
    rival = next(row for row in other.rows if row.family == "a rival")
    assert rival.parts[ALL].behind.high < 0
    assert any("a rival is AHEAD" in line for line in truth_tables.verdict(other, None))


def test_what_is_highest_is_chosen_on_the_other_half_and_said(corpus, levels, found):
    assert found.highest == found.default == "true"
    assert not any("Highest of all" in line for line in truth_tables.verdict(found, None))
    swapped = {**truth_made.FAMILIES, "true": "a rival", "rival": "another"}
    other = analyse(levels, corpus, truth_made.removals(corpus), swapped, truth_made.OWN, 100)
    assert other.highest == "true"
    rows = {row.variant: row.parts[ALL] for row in other.rows}
    assert rows["true"].below[:3] == (0.0, 0.0, 0.0)
    ahead, behind = rows["half true"].below, rows["true"].behind
    assert ahead[:3] == pytest.approx((-behind.mean, -behind.high, -behind.low))
    said = next(line for line in truth_tables.verdict(other, None) if "Highest of all" in line)
    assert "a rival (`true`)" in said
    assert "chance" in said.split("Behind it are")[1].split(";")[0]
    table = truth_tables.markdown(other, EMPTY, None).splitlines()
    lines = [line for line in table if line.startswith("|")][: len(other.rows) + 3]
    assert len({line.count("|") for line in lines}) == 1


def test_tables_hold_every_figure(found):
    columns = truth_tables.columns(found)
    assert columns["family"] == [row.family for row in found.rows]
    assert {len(values) for values in columns.values()} == {5}
    assert columns["lds"][0] == found.rows[0].parts[ALL].lds.mean
    assert columns["lds 5 updates_low"][0] == found.rows[0].parts["5 updates"].lds.low
    ranked = truth_tables.variants(found)
    assert ranked["lds_choosing"] == sorted(ranked["lds_choosing"], reverse=True)
    assert len(ranked["variant"]) == 6


def test_a_setting_is_told_from_pairs_that_differ_in_it_alone(found):
    way, other = Way("all", 0.1), Way("all", 1.0)
    named = {
        "true": Variant("exact", way, 0.1, "uniform"),
        "half true": Variant("exact", other, 0.1, "uniform"),
        "weak": Variant("exact", way, 0.1, "ratio"),
        "noise": Variant("exact", other, 0.1, "ratio"),
        "rival": Variant("odd", way, None, "uniform"),  # its step differs, too
        "scrambled": Variant("exact", other._replace(scrambled=True), 0.1, "uniform"),
    }
    table = truth_tables.settings(found, named)
    rows = {(s, v): tuple(rest) for s, v, *rest in zip(*table.values(), strict=True)}
    lds = {n: found.variants[n][1:] for n in named}
    damping = [
        (lds["half true"][h] - lds["true"][h] + lds["noise"][h] - lds["weak"][h]) / 2
        for h in (0, 1)
    ]
    assert rows["damping", "1"] == ("0.1", 2, *map(pytest.approx, damping))
    assert rows["weighting", "ratio"][1] == 2
    assert set(rows) == {("damping", "1"), ("weighting", "ratio")}


def test_removals_are_held_against_the_first_method(found, tmp_path):
    rng = np.random.default_rng(0)
    rises = {
        "unlearning": {2: 1 + 0.1 * rng.random(6), 4: 2 + 0.1 * rng.random(6)},
        "random": {2: 0.1 * rng.random(6), 4: 3 + 0.1 * rng.random(6)},
    }
    table = truth_tables.removals(rises, "unlearning")
    assert table["method"] == ["unlearning", "random"] * 2
    assert table["removed"] == [2, 2, 4, 4]
    assert table["rise"][1] == pytest.approx(rises["random"][2].mean())
    said = truth_tables.verdict(found, table)
    start = "The rise of the loss without the"
    assert f"{start} 2 tracks of random is less than without those of unlearning." in said
    assert f"{start} 4 tracks of random is MORE than without those of unlearning." in said
    text = truth_tables.markdown(found, EMPTY, table)
    assert "**unlearning, exact**" in text
    assert "*noise ceiling*" in text
    lines = text.splitlines()
    at = lines.index("| method | 2 tracks | unlearning ahead by | 4 tracks | unlearning ahead by |")
    cells = [line.split(" | ") for line in lines[at + 2 : at + 4]]
    assert cells[0][2] == cells[0][4].rstrip(" |") == ""
    behind = (rises["unlearning"][2] - rises["random"][2]).mean()
    assert cells[1][2].startswith(f"{behind:.4f} [")
    drawn = truth_figures.draw(tmp_path, found, table)
    names = {f"{n}.{k}" for n in ("lds", "cost", "removal") for k in ("png", "svg")}
    assert {path.name for path in drawn} == names


def test_a_report_gets_all_queries(found):
    content = truth_tables.for_report(found, "a rival")
    assert [row["own"] for row in content["rows"]] == [True, False, False, False, False]
    assert content["rows"][0]["method"] == "a rival"
    row = next(r for r in found.rows if r.family == "a rival")
    assert content["rows"][0]["lds"]["mean"] == row.parts[ALL].lds.mean
    assert content["ceiling"]["mean"] == found.ceilings[ALL].mean
    assert content["note"].startswith(f"{found.queries[ALL]} queries, 20 sets")
    best = max(found.rows, key=lambda r: found.variants[r.variant][1])
    assert content["verdict"][0].startswith(f"What is highest on the other sets, {best.family},")


def test_the_report_reads_what_it_gets(found, tmp_path):
    content = truth_tables.for_report(found, "a rival")
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    read = agreement.read_truth(path)
    assert read.ceiling.mean == found.ceilings[ALL].mean
    assert [row.method for row in read.rows] == [row["method"] for row in content["rows"]]


def test_the_best_is_chosen_without_the_reporting_half(corpus, levels):
    """Were the other half looked at, the best on it would be chosen."""
    kept = truth_made.removals(corpus)
    _, reporting = datamodelling.halves(len(kept))
    turned = []
    for level in levels:
        losses = level.losses.copy()
        losses[:, reporting] *= -1
        turned.append(level._replace(losses=losses))
    other = analyse(turned, corpus, kept, truth_made.FAMILIES, truth_made.OWN, draws=100)
    assert other.default == "true"
    row = next(r for r in other.rows if r.variant == "true")
    assert row.parts[ALL].lds.high < 0


def own_level(corpus, change=lambda scores, own: scores):
    """A level of which two queries are tracks of the corpus; `own` is where they are."""
    level = truth_made.level(corpus, 5, 0, ("generated", "generated", "track", "track"))
    members = [name for name, m in zip(corpus.ids, corpus.members, strict=True) if m]
    ids = (*level.queries.ids[:2], members[2], members[3])
    own = np.array(ids)[:, None] == np.array(corpus.ids)
    assert own.sum() == 2
    names = [*level.scored.scores, "latent similarity"]
    scores = dict(level.scored.scores)
    scores["latent similarity"] = latent_similarity(level.queries.examples, corpus.examples)
    scored = level.scored._replace(
        scores={name: change(scores[name], own) for name in names},
        method={**level.scored.method, "latent similarity": "latent similarity"},
        cost={**level.scored.cost, "latent similarity": Passes(0.0, 0.0)},
    )
    # Membership of the query itself moves its loss more than all else.
    kept = truth_made.removals(corpus)
    moved = 50.0 * (own[:, corpus.members] @ kept.T).T
    return level._replace(
        queries=level.queries._replace(ids=ids), scored=scored, losses=level.losses - moved
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda scores, own: np.where(own, 1e6, scores),
        lambda scores, own: np.where(own, np.nan, scores),
        lambda scores, own: scores + 300.0,
        lambda scores, own: 7 * scores - 2000.0,
    ],
)
def test_a_query_that_is_a_track_says_nothing_by_its_own_score(corpus, change):
    kept, families = truth_made.removals(corpus), {**truth_made.FAMILIES}
    families["latent similarity"] = "latent similarity"
    plain, changed = (
        analyse([own_level(corpus, c)], corpus, kept, families, truth_made.OWN, draws=50)
        for c in (lambda scores, own: scores, change)
    )
    for one, other in zip(plain.rows, changed.rows, strict=True):
        assert one.variant == other.variant
        for part in plain.ceilings:
            got, want = one.parts[part], other.parts[part]
            for name in ("lds", "partial", "specific", "behind", "below"):
                np.testing.assert_allclose(
                    getattr(got, name)[:3], getattr(want, name)[:3], atol=1e-9, equal_nan=True
                )


def test_likeness_says_nothing_beyond_itself_of_a_query_that_is_a_track(corpus):
    kept, families = truth_made.removals(corpus), {**truth_made.FAMILIES}
    families["latent similarity"] = "latent similarity"
    found = analyse([own_level(corpus)], corpus, kept, families, truth_made.OWN, draws=50)
    rows = {row.variant: row.parts for row in found.rows}
    for part in found.ceilings:
        assert np.isnan(rows["latent similarity"][part].partial.mean)
        assert rows["true"][part].partial.mean > 0.5
    assert rows["true"]["track queries"].lds.mean > 0.8
