"""Tables against plain loops over the arrays of small stores."""

import tracemalloc

import numpy as np
import pytest

from tda_jax import examples, store
from tda_jax.attribution import calibration, passes, summary, table
from tda_jax.attribution.by_unlearning import Run
from tda_jax.attribution.directions import Calibration
from tda_jax.attribution.settings import Settings
from tda_jax.errors import InputError

N, R, S, B, FRAMES = 6, 4, 10, 4, 3  # ten strata: each is a bin of its own
IDS = tuple(f"track {i}" for i in range(N))
MEMBERS = np.array([True, False, True, True, False, True])
RATE = 0.5
LINEARISED = Settings(100, "all", replicates=R, strata=S, blocks=B)
EXACT = LINEARISED._replace(method="exact", frames=True)
OWN = Calibration(loss=2.0, a=0.3, b=0.1, b_unbiased=0.09)


def corpus(n=N, members=MEMBERS):
    latents = np.zeros((n, FRAMES, 2, 1), np.float32)
    return examples.corpus_of(IDS[:n], latents, members=members[:n])


def linear_arrays(seed, n=N, blocks=B):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal((n, *shape, S)).astype(np.float32)

    own = np.linspace(3, -2, n, dtype=np.float32)[:, None, None]
    return {
        "loss": np.abs(normal(R)) + 0.5,
        "a": normal(R) + own,
        "b": np.abs(normal(R)),
        "b_step": np.abs(normal(R)),
        "a_without": normal(blocks) + own,
        "b_without": np.abs(normal(blocks)),
        "curved": normal(R),
    }


def exact_arrays(seed):
    rng = np.random.default_rng(seed)
    loss = np.abs(rng.standard_normal((N, R, S))).astype(np.float32) + 0.5
    return {"loss": loss, "frames": rng.standard_normal((N, FRAMES)).astype(np.float32)}


def kept(path, fields, arrays, ids=IDS, chunk=4):
    made = store.open_store(path, ids, fields, {"of": "a test"}, chunk=chunk)
    for chunk in store.missing(made):
        rows = store.rows(made, chunk)
        here = {field.name: arrays[field.name][rows.start : rows.stop] for field in fields}
        store.write_chunk(made, chunk, here)
    return made


def linear_run(tmp_path, by_query, settings=LINEARISED, rate=RATE, ids=IDS, own=None, chunk=4):
    fields = passes.linear_fields(settings)
    sweeps = {q: kept(tmp_path / q, fields, x, ids, chunk) for q, x in by_query.items()}
    return Run(sweeps, None, dict.fromkeys(by_query, (OWN, rate)), [], {}, own or {})


def exact_run(tmp_path, before, by_query):
    fields = passes.loss_fields(EXACT, FRAMES)
    sweeps = {q: kept(tmp_path / q, fields, arrays) for q, arrays in by_query.items()}
    first = kept(tmp_path / "before", fields, before)
    return Run(sweeps, first, dict.fromkeys(by_query, (OWN, RATE)), [], {}, {})


def one_table(run, settings, of=None):
    ((_, made),) = table.tables(run, corpus() if of is None else of, settings)
    return made


def by_corpus(made, name):
    """A column in the order of the corpus."""
    out = np.empty(len(made.order))
    out[made.order] = made.columns[name]
    return out


def divisors(weighting, rise, before):
    """What the mean of each bin is divided by, [track][bin], by loops."""
    means = [[float(np.mean(rise[i][:, s])) for s in range(S)] for i in range(N)]
    if weighting == "uniform":
        return [[1.0] * S] * N
    if weighting == "ratio":
        return [[float(np.mean(before[i][:, s])) for s in range(S)] for i in range(N)]
    return [[float(np.std([means[j][s] for j in range(N)])) for s in range(S)]] * N


def weigh(values, divided):
    """The mean over bins of the bin's mean over its divisor, for each track."""
    return [
        sum(float(np.mean(values[i][:, s])) / divided[i][s] for s in range(S)) / S for i in range(N)
    ]


def standard_error(rise, divided):
    out = []
    for i in range(N):
        variances = [np.var(rise[i][:, s], ddof=1) / (divided[i][s] * S) ** 2 for s in range(S)]
        out.append(float(np.sqrt(sum(variances) / R)))
    return out


@pytest.mark.parametrize("weighting", ["uniform", "standardised", "ratio"])
def test_linearised_columns(tmp_path, weighting):
    settings = LINEARISED._replace(weighting=weighting, second_order=True)
    x = {name: v.astype(np.float64) for name, v in linear_arrays(0).items()}
    made = one_table(linear_run(tmp_path, {"q": linear_arrays(0)}, settings), settings)
    odd, even = RATE * x["a"], RATE**2 * x["b"]
    rise = odd + even
    divided = divisors(weighting, rise, x["loss"])
    without = [RATE * x["a_without"][:, k] + RATE**2 * x["b_without"][:, k] for k in range(B)]
    left_out = np.array([weigh(w[:, None], divided) for w in without])
    spread = [sum((s - left_out[:, i].mean()) ** 2 for s in left_out[:, i]) for i in range(N)]
    wanted = {
        "score": weigh(rise, divided),
        "standard_error": standard_error(rise, divided),
        "direction_error": [np.sqrt((B - 1) / B * s) for s in spread],
        "odd": weigh(odd, divided),
        "even": weigh(even, divided),
        "second_order": weigh(RATE**2 * x["curved"], divided),
        "loss_before": [x["loss"][i].mean() for i in range(N)],
        "loss_after": [x["loss"][i].mean() + rise[i].mean() for i in range(N)],
    }
    for name, column in wanted.items():
        np.testing.assert_allclose(by_corpus(made, name), column, rtol=1e-9, err_msg=name)
    score = np.asarray(wanted["score"])
    assert made.columns["id"] == [IDS[i] for i in np.argsort(-score)]
    assert made.unscored == ()


def test_exact_columns(tmp_path):
    before, after = exact_arrays(0), exact_arrays(1)
    made = one_table(exact_run(tmp_path, before, {"q": after}), EXACT)
    rise = after["loss"].astype(np.float64) - before["loss"].astype(np.float64)
    plain = divisors("uniform", rise, None)
    wanted = {
        "score": weigh(rise, plain),
        "standard_error": standard_error(rise, plain),
        "loss_before": before["loss"].astype(np.float64).mean((1, 2)),
        "loss_after": after["loss"].astype(np.float64).mean((1, 2)),
    }
    for name, column in wanted.items():
        np.testing.assert_allclose(by_corpus(made, name), column, rtol=1e-9, err_msg=name)
    for name in ("direction_error", "odd", "even"):
        assert np.isnan(made.columns[name]).all()
    assert "second_order" not in made.columns


def plain_scores(*values):
    """Arrays of a linearised sweep whose scores are these, at a learning rate of 0.5."""
    a = np.array(values, np.float32)[:, None, None] / RATE
    arrays = {name: np.zeros_like(x) for name, x in linear_arrays(0).items()}
    return arrays | {"loss": np.ones((N, R, S), np.float32), "a": a + arrays["a"]}


def test_rank_order_and_calibration_by_hand(tmp_path):
    """Decoys are tracks 1 and 4, of scores 5 and 2; members have 1, 4, 4 and 3."""
    made = one_table(linear_run(tmp_path, {"q": plain_scores(1, 5, 4, 4, 2, 3)}), LINEARISED)
    columns = made.columns
    assert columns["id"] == [IDS[i] for i in (1, 2, 3, 5, 4, 0)]  # equal scores by id
    assert list(made.order) == [1, 2, 3, 5, 4, 0]
    assert columns["rank"] == [None, 1, 2, 3, None, 4]
    assert list(columns["member"]) == [False, True, True, True, False, True]
    # (1 + decoys as high) / (1 + decoys); a decoy is compared with the other one only
    np.testing.assert_allclose(columns["p_value"], [1 / 2, 2 / 3, 2 / 3, 2 / 3, 1, 1])
    # 4 members · p / members let in: 4 · (2/3) / 3, which the two above share
    np.testing.assert_allclose(columns["q_value"], [np.nan, 8 / 9, 8 / 9, 8 / 9, np.nan, 1])
    assert list(columns) == [
        *("rank", "id", "score", "standard_error", "direction_error", "p_value", "q_value"),
        *("distinct", "odd", "even", "loss_before", "loss_after", "member"),
    ]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_tracks_without_a_finite_loss_have_no_score_and_spoil_no_other(tmp_path, bad):
    whole = linear_arrays(0)
    spoilt = {name: x.copy() for name, x in whole.items()}
    spoilt["loss"][3, 1, 2] = bad
    spoilt["a"][0, 0, 0] = bad
    spoilt["a_without"][0, 0, 0] = bad
    made = one_table(linear_run(tmp_path / "a", {"q": spoilt}), LINEARISED)
    assert made.unscored == (
        (IDS[0], "derivative along the query's direction is not finite"),
        (IDS[3], "loss before unlearning is not finite"),
    )
    assert made.columns["id"][-2:] == [IDS[0], IDS[3]]  # last, by id
    assert made.columns["rank"][-2:] == [None, None]
    for name in ("score", "standard_error", "direction_error", "p_value", "q_value", "loss_after"):
        assert np.isnan(made.columns[name][-2:]).all(), name
        assert np.isfinite(by_corpus(made, name)[[2, 5]]).all(), name
    rest = [1, 2, 4, 5]
    some = {name: x[rest] for name, x in whole.items()}
    ids, of = tuple(IDS[i] for i in rest), examples.take(corpus(), rest)
    alone = one_table(linear_run(tmp_path / "b", {"q": some}, ids=ids), LINEARISED, of)
    for name, column in alone.columns.items():
        np.testing.assert_array_equal(made.columns[name][:4], column, err_msg=name)


def test_the_reason_says_which_loss_was_not_finite(tmp_path):
    before, after = exact_arrays(0), exact_arrays(1)
    before["loss"][1, 0, 0] = after["loss"][1, 0, 0] = np.inf
    after["loss"][2, 0, 0] = np.nan
    made = one_table(exact_run(tmp_path, before, {"q": after}), EXACT)
    assert made.unscored == (
        (IDS[1], "loss before unlearning is not finite"),
        (IDS[2], "loss after unlearning is not finite"),
    )
    assert np.isnan(by_corpus(made, "loss_before")[1])  # not inf


def test_a_track_without_a_loss_in_a_bin_has_no_ratio(tmp_path):
    arrays = linear_arrays(0)
    arrays["loss"][2, :, 4] = 0
    settings = LINEARISED._replace(weighting="ratio")
    made = one_table(linear_run(tmp_path, {"q": arrays}), settings)
    assert made.unscored == ((IDS[2], "loss before is 0 in a timestep bin, so it has no ratio"),)


def test_distinct_is_over_the_other_queries(tmp_path):
    queries = {f"q{i}": linear_arrays(i) for i in range(5)}
    made = dict(table.tables(linear_run(tmp_path / "five", queries), corpus(), LINEARISED))
    scores = {q: by_corpus(t, "score") for q, t in made.items()}
    for query, one in made.items():
        others = np.stack([s for q, s in scores.items() if q != query])
        centre = np.median(others, axis=0)
        spread = 1.4826 * np.median(np.abs(others - centre), axis=0)
        wanted = (scores[query] - centre) / spread
        np.testing.assert_allclose(by_corpus(one, "distinct"), wanted, rtol=1e-9)
    four = linear_run(tmp_path / "four", dict(list(queries.items())[:4]))
    for _, one in table.tables(four, corpus(), LINEARISED):
        assert np.isnan(one.columns["distinct"]).all()


def test_one_table_at_a_time_is_in_memory(tmp_path, monkeypatch):
    """A query more costs three numbers a track, where its table has thirteen columns."""
    monkeypatch.setattr(calibration, "_BLOCK", 64)  # far less than all tracks, as it is at scale
    n = 2000
    ids = tuple(f"track {i:05d}" for i in range(n))
    tracks = examples.corpus_of(ids, np.zeros((n, FRAMES, 2, 1), np.float32))

    def peak(queries):
        swept = {f"q{i}": linear_arrays(i, n) for i in range(queries)}
        run = linear_run(tmp_path / str(queries), swept, ids=ids, chunk=n)
        del swept
        tracemalloc.start()
        try:
            assert sum(1 for _ in table.tables(run, tracks, LINEARISED)) == queries
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(10) - peak(6) < 4 * n * 8 * 4


def test_two_blocks_give_no_jackknife(tmp_path):
    settings = LINEARISED._replace(blocks=2)
    arrays = linear_arrays(0, blocks=2)
    made = one_table(linear_run(tmp_path, {"q": arrays}, settings), settings)
    assert np.isnan(made.columns["direction_error"]).all()
    assert np.isfinite(made.columns["standard_error"]).all()


def test_scores_of_every_rate_come_from_one_store(tmp_path):
    arrays = linear_arrays(0)
    arrays["loss"][4, 0, 0] = np.nan
    run = linear_run(tmp_path, {"q": arrays})
    rates = [1e-3, RATE, -2.0]
    got = table.scores_at_rates(run, corpus(), LINEARISED, "q", rates)
    for row, rate in zip(got, rates, strict=True):
        rise = rate * arrays["a"].astype(np.float64) + rate**2 * arrays["b"].astype(np.float64)
        wanted = rise.mean((1, 2))
        wanted[4] = np.nan
        np.testing.assert_allclose(row, wanted, rtol=1e-9)
    made = one_table(run, LINEARISED)
    np.testing.assert_array_equal(got[1], by_corpus(made, "score"))
    assert table.scores_at_rates(run, corpus(), LINEARISED, "q", []).shape == (0, N)
    rises = [0.05, 0.5]
    for rise, rate in zip(rises, table.rates_for_rises(run, "q", rises), strict=True):
        assert rate * OWN.a + rate**2 * OWN.b == pytest.approx(rise * OWN.loss)


def test_frame_maps(tmp_path):
    before, after = exact_arrays(0), exact_arrays(1)
    run = exact_run(tmp_path, before, {"q": after})
    wanted = after["frames"].astype(np.float64) - before["frames"].astype(np.float64)
    np.testing.assert_array_equal(table.frame_rises(run, "q"), wanted)


def test_what_a_run_does_not_hold_is_refused(tmp_path):
    linear = linear_run(tmp_path / "a", {"q": linear_arrays(0)})
    exact = exact_run(tmp_path / "b", exact_arrays(0), {"q": exact_arrays(1)})
    with pytest.raises(InputError, match="is of other tracks than the corpus"):
        table.tables(linear, corpus(5), LINEARISED)
    with pytest.raises(InputError, match="no query 'x'"):
        table.scores_at_rates(linear, corpus(), LINEARISED, "x", [1.0])
    with pytest.raises(InputError, match="scores of one learning rate only"):
        table.scores_at_rates(exact, corpus(), EXACT, "q", [1.0])
    with pytest.raises(InputError, match="no losses per frame were kept"):
        table.frame_rises(linear, "q")
    none = Run({}, None, {}, [("q", "why")], {}, {})
    assert list(table.tables(none, corpus(), LINEARISED)) == []


def test_summary_of_a_query(tmp_path):
    arrays = plain_scores(1, 5, 4, -4, 2, 3)
    arrays["loss"][2, 0, 0] = np.nan
    made = one_table(linear_run(tmp_path, {IDS[3]: arrays}, own={IDS[3]: 3}), LINEARISED)
    found = summary.of_query(IDS[3], made, OWN, RATE, 1)
    assert found == {
        "id": IDS[3],
        "own": IDS[3],
        "self_rank": 3,
        "rate": RATE,
        "predicted_rise": pytest.approx((RATE * 0.3 + RATE**2 * 0.1) / 2.0),
        "loss": 2.0,
        "a": 0.3,
        "b": 0.1,
        "b_unbiased": 0.09,
        "q_below": {"0.05": 0, "0.1": 0},
        "concentration": pytest.approx(3 / 4),  # of members 1 and 3, the query left out
        "scored": 5,
        "unscored": [{"id": IDS[2], "reason": "loss before unlearning is not finite"}],
        "left_out": [],
    }
    assert summary.of_query(IDS[3], made, OWN, RATE, 2)["predicted_rise"] is None
    # A query of a track's id that is not that track, by its latent.
    other = one_table(linear_run(tmp_path / "o", {IDS[3]: arrays}), LINEARISED)
    assert summary.of_query(IDS[3], other, OWN, RATE, 1)["self_rank"] is None
    falling = one_table(linear_run(tmp_path / "x", {"q": plain_scores(*[-1] * N)}), LINEARISED)
    assert summary.of_query("q", falling, OWN, RATE, 1)["concentration"] is None


@pytest.mark.parametrize("own", [0, 1])  # a member, and a decoy
def test_the_query_itself_is_neither_a_decoy_nor_a_discovery(tmp_path, own):
    arrays = linear_arrays(0)
    arrays["a"][own] += 100
    with_own = one_table(linear_run(tmp_path / "a", {"q": arrays}, own={"q": own}), LINEARISED)
    without = {name: np.delete(x, own, axis=0) for name, x in arrays.items()}
    ids = tuple(np.delete(IDS, own))
    rest = examples.take(corpus(), np.delete(np.arange(N), own))
    run = linear_run(tmp_path / "b", {"q": without}, ids=ids)
    alone = one_table(run, LINEARISED, rest)
    row = with_own.columns["id"].index(IDS[own])
    for name in ("p_value", "q_value"):
        np.testing.assert_array_equal(
            np.delete(with_own.columns[name], row), alone.columns[name], name
        )
    assert np.isnan(with_own.columns["q_value"][row])
    assert with_own.own == IDS[own]
    assert summary.concentration(with_own) == summary.concentration(alone)


def test_q_values_are_counted_at_their_levels():
    q = np.array([0.01, 0.05, 0.07, 0.1, 0.2, np.nan])
    columns = {"id": list(IDS), "rank": [1, 2, 3, 4, 5, None], "q_value": q}
    columns |= {"score": np.arange(6.0), "member": MEMBERS}
    made = table.Table(columns, np.arange(6), (), None)
    assert summary.of_query("q", made, OWN, RATE, 1)["q_below"] == {"0.05": 2, "0.1": 4}


@pytest.mark.parametrize("weighting", ["uniform", "standardised", "ratio"])
def test_a_corpus_without_any_finite_loss_has_no_scores_and_no_error(tmp_path, weighting):
    arrays = linear_arrays(0)
    arrays["loss"][:] = np.nan
    settings = LINEARISED._replace(weighting=weighting)
    made = one_table(linear_run(tmp_path, {"q": arrays}, settings), settings)
    assert [name for name, _ in made.unscored] == list(IDS)
    assert made.columns["rank"] == [None] * N
    assert np.isnan(made.columns["q_value"]).all()
    assert summary.of_query("q", made, OWN, RATE, 1)["scored"] == 0
