"""The numbers and places that a page shows, against plain computations of them."""

import math

import numpy as np
import pytest
from pyarrow import parquet

from tda_jax.attribution import summary
from tda_jax.errors import InputError
from tda_jax.evaluation.ranking import auc
from tda_jax.report import charts, contents, scale, words
from tda_jax.report.rivals import rivals
from tests.report import saved


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Queries as read: one that is a track, and one that is none; and their tables."""
    workdir = tmp_path_factory.mktemp("saved")
    tables = saved.write_results(workdir)
    return contents.read(workdir).queries, list(tables.values())


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (0.0123456, "0.0123"),
        (-0.5, "−0.500"),
        (123.4, "123"),
        (12345.0, "12,300"),
        (0.0, "0"),
        (1.5e-7, "1.50 × 10⁻⁷"),
        (-2e6, "−2.00 × 10⁶"),
        (0.9999, "1.00"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_numbers_are_written_with_three_digits(value, wanted):
    assert words.number(value) == wanted


def test_other_words():
    assert [words.short(x) for x in (1.0, 2.5, 0.001, 0.0, 1e-7, 1200.0)] == [
        *("1", "2.5", "0.001", "0", "1 × 10⁻⁷", "1,200")
    ]
    assert words.percent(0.0714) == "7\u00a0%"
    assert (words.count(1, "track"), words.count(1200, "query", "queries")) == (
        "1 track",
        "1,200 queries",
    )
    assert [words.duration(x) for x in (3.21, 75.2, 3723.0)] == ["3.2 s", "1 min 15 s", "1 h 2 min"]
    assert words.clock(65.9) == "1:05"


def test_a_track_is_read_as_it_was_saved(read):
    (own, _), (table, _) = read
    assert own.own == 0
    track = contents.track(own, 0)
    assert (track.id, track.own, track.rank) == (saved.NAMES[0][0], True, 1)
    row = table.columns["id"].index(saved.NAMES[2][0])
    several = contents.track(own, row)
    assert several.captions == ("one", "two")
    assert several.start == 0.5
    assert contents.track(own, table.columns["id"].index("missing")).start == 0.25
    assert not several.own
    assert math.isnan(several.likeness["latent similarity"])
    assert dict(several.about) == {"label": saved.EVIL}
    assert several.error == math.hypot(
        table.columns["standard_error"][row], table.columns["direction_error"][row]
    )


def test_results_of_a_plain_run_can_be_read(tmp_path):
    saved.write_results(tmp_path, queries=((0, 3),), extra=False)
    (query,) = contents.read(tmp_path).queries
    track = contents.track(query, 1)
    assert (track.start, track.file_name, track.likeness) == (0.0, None, {})
    assert track.error == query.column("standard_error")[1]


def test_the_concentration_is_that_of_the_summary(read):
    for query, table in zip(*read, strict=True):
        curve = charts.concentration(query)
        at = dict(curve.shares)
        assert at[0.01] == pytest.approx(summary.concentration(table), rel=1e-12)
        score = np.array(
            [
                s
                for name, s, m in zip(
                    *(table.columns[c] for c in ("id", "score", "member")), strict=True
                )
                if m and name != table.own and s == s
            ]
        )
        assert curve.tracks == len(score)
        best = np.sort(np.maximum(score, 0))[::-1]
        assert at[0.5] == pytest.approx(best[: math.ceil(len(score) / 2)].sum() / best.sum())
        assert curve.points[0] == (0.0, 0.0)
        assert curve.points[-1] == (1.0, 1.0)
        for x, y in curve.points:
            assert y == pytest.approx(best[: round(x * len(score))].sum() / best.sum(), abs=1e-5)


def test_the_distribution_counts_every_track_but_the_query(read):
    for query, table in zip(*read, strict=True):
        chart = charts.distribution(query)
        score, member = (table.columns[c] for c in ("score", "member"))
        itself = np.array([name == table.own for name in table.columns["id"]])
        heights = []
        for kind, chosen in (("members", member), ("decoys", ~member)):
            values = score[chosen & ~itself & ~np.isnan(score)]
            spread = chart.spread[kind]
            assert spread.tracks == len(values)
            assert (spread.lowest, spread.highest) == (values.min(), values.max())
            assert spread.median == np.median(values)
            heights += [bar.height for bar in getattr(chart, kind)]
            shares = [share_of(bar.height, chart) for bar in getattr(chart, kind)]
            assert sum(shares) == pytest.approx(1.0, abs=2e-3)
        assert max(heights) == 1.0
        assert min(heights) > 0.0
        assert (chart.own is None) == (table.own is None)


def share_of(height, chart):
    """The share that a height stands for, by two of the chart's own levels."""
    levels = [(float(tick.says.split()[0]) / 100, tick.at) for tick in chart.levels]
    share, at = levels[0]
    least = 1 / (2 * max(s.tracks for s in chart.spread.values()))
    return least * (share / least) ** (height / at)


def test_all_scores_alike(read):
    query = read[0][0]
    same = query._replace(table=replaced(query, np.full(saved.tracks(), 3.0)))
    chart = charts.distribution(same)
    assert [bar.height for bar in chart.members] == [1.0]
    assert charts.concentration(same).shares[-1] == pytest.approx((0.5, 7 / 13))
    nothing = query._replace(table=replaced(query, np.full(saved.tracks(), np.nan)))
    assert charts.distribution(nothing) is None
    assert charts.concentration(nothing) is None
    assert contents.top_rows(nothing, 5) == []
    assert math.isnan(rivals(nothing).rows[0].member_auc)


def replaced(query, score):
    at = query.table.column_names.index("score")
    return query.table.set_column(at, "score", [score])


def test_whiskers_stand_where_scores_do(read):
    query, table = (some[0] for some in read)
    tracks = [contents.track(query, row) for row in range(6)]
    axis = charts.axis_of(tracks, query)
    places = [charts.whisker(t, axis) for t in tracks]
    assert [p.beyond for p in places] == [True, *[False] * 5]
    high = max(t.score + t.error for t in tracks[1:])
    width = (places[1].at - axis.zero) / tracks[1].score
    for track, place in zip(tracks[1:], places[1:], strict=True):
        assert place.at == pytest.approx(axis.zero + width * track.score, abs=0.02)
        assert place.high - place.at == pytest.approx(width * track.error, abs=0.02)
        assert place.at - place.low == pytest.approx(width * track.error, abs=0.02)
    assert max(p.high for p in places[1:]) == pytest.approx(axis.zero + width * high, abs=0.02)
    assert axis.zero + width * high < 100
    decoys = table.columns["score"][~table.columns["member"]]
    assert axis.decoy == pytest.approx(axis.zero + width * decoys.max(), abs=0.02)
    alone = charts.whisker(tracks[1]._replace(error=math.nan), axis)
    assert (alone.low, alone.high) == (None, None)


def test_methods_stand_beside_each_other(read):
    (own, other), (table, _) = read
    found = rivals(own)
    assert [row.method for row in found.rows] == [
        *("unlearning", "log-mel similarity", "caption similarity", "chance")
    ]
    assert found.top == 10
    columns = table.columns
    member, score = columns["member"], columns["score"]
    rest = np.arange(len(score)) != 0  # the query has the highest score
    scored = rest & ~np.isnan(score)
    for row, name in zip(found.rows, ("score", "log_mel_similarity"), strict=False):
        x = columns[name]
        assert row.member_auc == pytest.approx(auc(x[member & rest], x[~member & rest]))
        assert row.own_rank == 1 + (x[member] > x[0]).sum()
        best = [set(np.argsort(-v[scored])[:10]) for v in (x, score)]
        assert row.overlap == len(best[0] & best[1]) / 10
        ordinal = [np.argsort(np.argsort(v[scored])) for v in (x, score)]
        assert row.spearman == pytest.approx(np.corrcoef(*ordinal)[0, 1])
    chance = found.rows[-1]
    assert (chance.own_rank, chance.member_auc, chance.spearman) == (7.0, 0.5, 0.0)
    assert chance.overlap == 10 / 18
    assert all(math.isnan(row.own_rank) for row in rivals(other).rows)


@pytest.mark.parametrize("size", [1e-6, 1.0, 300.0])
def test_an_axis_holds_all_its_scores(size):
    rng = np.random.default_rng(0)
    for scores in (rng.standard_normal(50) ** 5, rng.uniform(2, 3, 50), np.zeros(3)):
        axis = scale.scale_of(size * scores)
        places = axis.place(size * scores)
        assert ((places > 0) & (places < 1)).all()
        assert (np.argsort(places, kind="stable") == np.argsort(scores, kind="stable")).all()
        ticks = axis.ticks()
        assert 0.0 in ticks
        assert 3 <= len(ticks) <= 20
        edges = axis.edges(8)
        np.testing.assert_allclose(axis.place(edges), np.linspace(0, 1, 9), atol=1e-9)


def test_ticks_are_round():
    assert scale.round_ticks(0.0, 7.87) == [0, 2, 4, 6]
    assert scale.round_ticks(0.0, 30.0) == [0, 10, 20, 30]
    assert scale.round_ticks(-0.0012, 0.0031) == [-0.001, 0.0, 0.001, 0.002, 0.003]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "summary.json").unlink(), "summary.json: cannot be read"),
        (lambda f: (f / "summary.json").write_text("{"), "summary.json: cannot be read"),
        (lambda f: (f / "summary.json").write_text("[]"), "has no 'queries'; give a workdir"),
        (
            lambda f: (f / "summary.json").write_text('{"queries": [], "settings": {}}'),
            "has no query; attribute one at least",
        ),
        (lambda f: parquets(f)[0].write_bytes(b"PAR1"), "run experiments.attribute on"),
        (lambda f: parquets(f)[0].unlink(), "scores.parquet: cannot be read"),
        (lambda f: without(parquets(f)[0], "p_value"), "scores.parquet: has no column 'p_value'"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, spoil, message):
    saved.write_results(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        contents.read(tmp_path)


def without(path, column):
    parquet.write_table(parquet.read_table(path).drop_columns([column]), path)


def parquets(folder):
    return sorted(folder.rglob("scores.parquet"))


def test_labels_of_an_axis_do_not_touch(tmp_path):
    rng = np.random.default_rng(0)
    for low, high in ((-0.02, 0.06), (-0.3, 0.001), (0.0, 5.0)):
        axis = scale.scale_of(np.concatenate([1e-3 * rng.standard_normal(99), [low, high]]))
        every = [charts.Tick(charts._percent(axis, x), f"{x:g}") for x in axis.ticks()]
        kept = charts._legible(every, axis)
        places = [tick.at for tick in kept]
        assert places == sorted(places)
        assert np.diff(places).min() >= 12
        assert "0" in [tick.says for tick in kept]
        assert set(kept) <= set(every)
