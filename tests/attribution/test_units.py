"""Results of tracks from those of their windows and captions, against plain loops over the rows."""

import numpy as np
import pytest

from tda_jax import compressed, examples
from tda_jax.attribution import calibration, passes, rises, scores, summary, table, units
from tda_jax.attribution.by_unlearning import Run
from tda_jax.attribution.settings import refuse
from tda_jax.columns import Column
from tda_jax.errors import InputError
from tests.attribution import test_settings
from tests.attribution.test_table import (
    EXACT,
    FRAMES,
    LINEARISED,
    OWN,
    RATE,
    B,
    R,
    S,
    by_corpus,
    divisors,
    kept,
    linear_arrays,
    linear_run,
    one_table,
    standard_error,
    weigh,
)

# (row, track, start of the window, member): "a" has two windows of two captions, "b" is a row
# without a track, "c" has three windows, "d" three captions; rows and tracks stand in other orders.
ROWS = [
    ("1", "d", 5.0, True),
    ("2", "a", 20.0, True),
    ("3", "c", 7.5, False),
    ("4", "f", None, False),
    ("5", "a", 0.0, True),
    ("6", "c", 0.0, False),
    ("7", "d", 5.0, True),
    ("8", "a", 20.0, True),
    ("9", "c", 15.0, False),
    ("a", "d", 5.0, True),
    ("aa", "a", 0.0, True),
    ("b", None, None, True),
    ("c", "e", 3.0, True),
]
IDS = tuple(row[0] for row in ROWS)
TRACKS = ("a", "b", "c", "d", "e", "f")
# By track, the positions of the rows of each window, by start.
WINDOWS = [[[4, 10], [1, 7]], [[11]], [[5], [2], [8]], [[0, 6, 9]], [[12]], [[3]]]
MEMBERS = np.array([True, True, False, True, True, False])
RNG = np.random.default_rng(7)


def metadata(rows=ROWS):
    found = []
    for i, (_, track, start, _) in enumerate(rows):
        own = {} if track is None else {"track": track, "caption": f"words {i}", "artist": track}
        found.append(own if start is None else own | {"window_start": start})
    return found


def corpus(rows=ROWS, described=None, as_column=False):
    """Each window of each track has a latent of its own, which its captions share."""
    windows = sorted({(track or name, start or 0.0) for name, track, start, _ in rows})
    latents = np.stack([_latent(windows.index((t or n, s or 0.0))) for n, t, s, _ in rows])
    return examples.corpus_of(
        [row[0] for row in rows],
        Column(latents.shape, latents.dtype, lambda some: latents[some]) if as_column else latents,
        masks=np.arange(FRAMES)[None] < np.arange(len(rows))[:, None] % FRAMES + 1,
        members=np.array([row[3] for row in rows]),
        metadata=metadata(rows) if described is None else described,
    )


def _latent(seed):
    return np.random.default_rng(seed).standard_normal((FRAMES, 2, 1)).astype(np.float32)


def of_tracks(values, left_out=()):
    """The mean over the captions of each window, then over windows, by loops."""
    values, found = values.astype(np.float64), []
    for windows in WINDOWS:
        each = [[values[i] for i in w if i not in left_out] for w in windows]
        each = [sum(captions) / len(captions) for captions in each if captions]
        found.append(sum(each) / len(each))
    return np.stack(found)


def test_the_tracks_of_rows():
    tracks = units.tracks_of(corpus())
    assert tracks.ids == TRACKS
    np.testing.assert_array_equal(tracks.members, MEMBERS)
    for track, windows in enumerate(WINDOWS):
        for window, rows in enumerate(windows):
            for caption, row in enumerate(rows):
                at = tracks.of_unit[row], tracks.window[row], tracks.caption[row]
                assert at == (track, window, caption)
    starts = [np.nan if track is None or start is None else start for _, track, start, _ in ROWS]
    np.testing.assert_array_equal(tracks.start, starts)
    assert tracks.metadata[0] == {
        "track": "a",
        "caption": ["words 4", "words 10", "words 1", "words 7"],
        "artist": "a",
        "window_start": [0.0, 20.0],
    }
    assert tracks.metadata[1] == {}
    assert tracks.metadata[4]["caption"] == "words 12"
    assert units.counts(tracks) == units.Counts(4, 2, 9, 2 + 1 + 1 + 3 + 1 + 1)
    order = np.array([5, 2, 0, 1, 4, 3])
    wanted = [row for track in order for window in WINDOWS[track] for row in window]
    assert units.rows_of(tracks, order).tolist() == wanted


def test_metadata_that_are_compressed_stay_so():
    usual, packed = corpus(), corpus()
    packed = packed._replace(metadata=compressed.compress(packed.metadata))
    got = units.tracks_of(packed).metadata
    assert isinstance(got, compressed.Compressed)
    assert list(got) == list(units.tracks_of(usual).metadata)


def test_rows_without_tracks_are_tracks_in_their_order():
    plain = corpus(described=[{"caption": "x", "window_start": "intro"} for _ in ROWS])
    for one in (plain, examples.take(plain, RNG.permutation(len(ROWS)))):
        tracks = units.tracks_of(one)
        assert (tracks.ids, tracks.metadata) == (one.ids, one.metadata)
        np.testing.assert_array_equal(tracks.of_unit, np.arange(len(ROWS)))
        np.testing.assert_array_equal(tracks.members, one.members)
        assert not tracks.window.any()
        assert not tracks.caption.any()
        assert units.outline(one, tracks) is one


@pytest.mark.parametrize("method", ["linearised", "exact"])
def test_a_corpus_without_units_has_the_results_of_its_rows_to_the_last_bit(tmp_path, method):
    plain = corpus(described=[{} for _ in ROWS])
    arrays = linear_arrays(0, len(ROWS))
    if method == "exact":
        run, settings = exact_run(tmp_path, *exact_arrays()), EXACT
    else:
        run, settings = linear_run(tmp_path, {"q": arrays}, ids=IDS), LINEARISED
    rise = rises.of_query(run, "q", settings, rises.read_before(run))
    made = one_table(run, settings, plain)
    score = scores.score(rise.total, "uniform", rise.before)
    wanted = {
        "score": score.value,
        "standard_error": score.standard_error,
        "p_value": calibration.empirical_p_values(score.value, plain.members),
        "loss_before": rise.before.astype(np.float64).mean(axis=(1, 2)),
    }
    if method == "linearised":
        weights = scores.bin_weights(rise.total)
        left_out = [scores.weighted(rise.without[:, k, None], weights) for k in range(B)]
        wanted["direction_error"] = scores.jackknife_standard_error(np.stack(left_out))
        wanted["even"] = scores.weighted(rise.even, weights)
    for name, column in wanted.items():
        np.testing.assert_array_equal(by_corpus(made, name), column, err_msg=name)
    assert "score_max" not in made.columns
    assert made.left_out == ()


@pytest.mark.parametrize("weighting", ["uniform", "standardised", "ratio"])
def test_linearised_columns_are_of_tracks(tmp_path, weighting):
    settings = LINEARISED._replace(weighting=weighting, second_order=True)
    arrays = linear_arrays(0, len(ROWS))
    x = {name: v.astype(np.float64) for name, v in arrays.items()}
    run = linear_run(tmp_path, {"q": arrays}, settings, ids=IDS)
    made = one_table(run, settings, corpus())
    each = RATE * x["a"] + RATE**2 * x["b"]
    rise, before = of_tracks(each), of_tracks(x["loss"])
    divided = divisors(weighting, rise, before)
    blocks = of_tracks(RATE * x["a_without"] + RATE**2 * x["b_without"])
    left_out = np.array([weigh(blocks[:, k, None], divided) for k in range(B)])
    score = np.array(weigh(rise, divided))
    best, start = best_windows(each, divided)
    wanted = {
        "score": score,
        "standard_error": standard_error(rise, divided),
        "direction_error": np.sqrt((B - 1) * left_out.var(axis=0)),
        "odd": weigh(of_tracks(RATE * x["a"]), divided),
        "even": weigh(of_tracks(RATE**2 * x["b"]), divided),
        "second_order": weigh(of_tracks(RATE**2 * x["curved"]), divided),
        "loss_before": before.mean((1, 2)),
        "loss_after": before.mean((1, 2)) + rise.mean((1, 2)),
        "p_value": calibration.empirical_p_values(score, MEMBERS),
        "q_value": calibration.q_values(score, MEMBERS),
        "score_max": best,
        "max_start": start,
    }
    for name, column in wanted.items():
        np.testing.assert_allclose(by_corpus(made, name), column, rtol=1e-9, err_msg=name)
    assert made.columns["id"] == [TRACKS[i] for i in np.argsort(-score)]
    assert list(made.columns["member"]) == [MEMBERS[i] for i in made.order]
    assert list(made.columns)[-2:] == ["score_max", "max_start"]
    several = [0, 2]
    assert (best[several] > score[several]).all()
    got = table.scores_at_rates(run, corpus(), settings, "q", [RATE])
    np.testing.assert_array_equal(got[0], by_corpus(made, "score"))


def best_windows(rise, divided):
    """The highest score of a window of each track, and its start, by loops."""
    best, starts = [], []
    for track, windows in enumerate(WINDOWS):
        found = []
        for rows in windows:
            mean = sum(rise[i] for i in rows) / len(rows)
            value = sum(float(np.mean(mean[:, s])) / divided[track][s] for s in range(S)) / S
            found.append((value, ROWS[rows[0]][2] if ROWS[rows[0]][1] else None))
        value, start = max(found, key=lambda pair: pair[0])
        best.append(value)
        starts.append(np.nan if start is None else start)
    return np.array(best), np.array(starts)


def exact_arrays():
    rng = np.random.default_rng(1)
    losses = np.abs(rng.standard_normal((2, len(ROWS), R, S))).astype(np.float32) + 0.5
    frames = rng.standard_normal((2, len(ROWS), FRAMES)).astype(np.float32)
    return [{"loss": x, "frames": f} for x, f in zip(losses, frames, strict=True)]


def exact_run(tmp_path, before, after):
    fields = passes.loss_fields(EXACT, FRAMES)
    stores = [kept(tmp_path / n, fields, x, IDS) for n, x in (("b", before), ("a", after))]
    return Run({"q": stores[1]}, stores[0], {"q": (OWN, RATE)}, [], {}, {})


def test_exact_columns_are_of_tracks_and_frames_of_units(tmp_path):
    before, after = exact_arrays()
    run = exact_run(tmp_path, before, after)
    made = one_table(run, EXACT, corpus())
    rise = of_tracks(after["loss"].astype(np.float64) - before["loss"].astype(np.float64))
    plain = divisors("uniform", rise, None)
    wanted = {
        "score": weigh(rise, plain),
        "standard_error": standard_error(rise, plain),
        "loss_after": of_tracks(after["loss"]).mean((1, 2)),
    }
    for name, column in wanted.items():
        np.testing.assert_allclose(by_corpus(made, name), column, rtol=1e-9, err_msg=name)
    frames = after["frames"].astype(np.float64) - before["frames"].astype(np.float64)
    np.testing.assert_array_equal(table.frame_rises(run, "q"), frames)


def test_the_order_of_the_units_changes_no_bit(tmp_path):
    arrays, order = linear_arrays(0, len(ROWS)), RNG.permutation(len(ROWS))
    made = one_table(linear_run(tmp_path / "a", {"q": arrays}, ids=IDS), LINEARISED, corpus())
    shuffled = examples.take(corpus(), order)
    turned = {name: x[order] for name, x in arrays.items()}
    run = linear_run(tmp_path / "b", {"q": turned}, ids=shuffled.ids)
    other = one_table(run, LINEARISED, shuffled)
    np.testing.assert_array_equal(other.order, made.order)
    for name, column in made.columns.items():
        np.testing.assert_array_equal(other.columns[name], column, err_msg=name)
    assert units.tracks_of(shuffled).metadata == units.tracks_of(corpus()).metadata


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_units_that_cannot_be_used_are_left_out_and_named(tmp_path, bad):
    """One caption of a window of "a", all of a window of "c", all units of "d"."""
    arrays = linear_arrays(0, len(ROWS))
    arrays["a"][4, 0, 0] = arrays["loss"][2, 1, 1] = bad
    arrays["a"][[0, 6], 2, 2] = arrays["loss"][9, 2, 2] = bad
    made = one_table(linear_run(tmp_path, {"q": arrays}, ids=IDS), LINEARISED, corpus())
    lost = "loss before unlearning is not finite"
    assert made.left_out == (
        ("3", lost),
        ("5", "derivative along the query's direction is not finite"),
    )
    assert made.unscored == (("d", lost),)
    rise = of_tracks(RATE * arrays["a"].astype(float) + RATE**2 * arrays["b"].astype(float), (4, 2))
    before = of_tracks(arrays["loss"], (4, 2))
    rest, plain = [0, 1, 2, 4, 5], divisors("uniform", rise, None)
    wanted = {
        "score": weigh(rise, plain),
        "loss_before": before.mean((1, 2)),
    }
    with np.errstate(invalid="ignore"):
        wanted["standard_error"] = standard_error(rise, plain)
    for name, column in wanted.items():
        got = by_corpus(made, name)
        np.testing.assert_allclose(got[rest], np.asarray(column)[rest], rtol=1e-9, err_msg=name)
        assert np.isnan(got[3])
    assert by_corpus(made, "max_start")[2] in (0.0, 15.0)  # not 7.5, which is left out
    for name in ("p_value", "score_max", "max_start"):
        assert np.isnan(by_corpus(made, name)[3])
    found = summary.of_query("q", made, OWN, RATE, 1)
    assert (found["scored"], len(found["unscored"])) == (5, 1)
    assert found["left_out"][0] == {"id": "3", "reason": lost}


@pytest.mark.parametrize(("row", "track"), [(1, 0), (2, 2)])  # of a member, and of a decoy
def test_a_query_that_is_a_unit_is_its_track(tmp_path, row, track):
    arrays = linear_arrays(0, len(ROWS))
    run = linear_run(tmp_path, {"q": arrays}, ids=IDS, own={"q": row})
    made = one_table(run, LINEARISED, corpus())
    assert made.own == TRACKS[track]
    assert np.isnan(by_corpus(made, "q_value")[track])
    score = by_corpus(made, "score")
    score[track] = np.nan  # neither a decoy nor a discovery
    np.testing.assert_array_equal(by_corpus(made, "q_value"), calibration.q_values(score, MEMBERS))
    rank = made.columns["rank"][made.columns["id"].index(TRACKS[track])]
    assert summary.of_query("q", made, OWN, RATE, 1)["self_rank"] == rank


def test_tracks_count_alike_in_the_match_of_decoys():
    given = corpus()
    outlined = units.outline(given, units.tracks_of(given))
    frames = given.examples.mask.sum(axis=1)
    power = (given.examples.mask[:, :, None, None] * given.examples.latent.astype(float) ** 2) / 2
    level = np.sqrt(power.sum(axis=(1, 2, 3)) / frames)
    rows = [[i for window in windows for i in window] for windows in WINDOWS]
    found = calibration.decoy_match(outlined, np.arange(6.0))
    factors = {
        "valid_frames": [np.mean([frames[i] for i in own]) for own in rows],
        "latent_rms": [np.mean([level[i] for i in own]) for own in rows],
        "loss_before": np.arange(6.0),
    }
    for name, values in factors.items():
        members, decoys = np.array(values)[MEMBERS], np.array(values)[~MEMBERS]
        pooled = np.sqrt((members.var(ddof=1) + decoys.var(ddof=1)) / 2)
        d = (members.mean() - decoys.mean()) / pooled
        assert found[name].standardised == pytest.approx(d, rel=1e-6), name


def changed(row, **changes):
    found = metadata()
    found[row] = found[row] | changes
    return found


@pytest.mark.parametrize(
    ("described", "words"),
    [
        (changed(3, track="a"), "track 'a': its unit .* is of a member and '4' of a decoy"),
        (changed(1, window_start=None), r"'a': its units \['2'\] have no window_start"),
        (changed(1, window_start=30.0), r"'a': its windows have \[2, 1, 1\] captions"),
        (changed(0, track=3), "metadata of '1' give the track 3; give the id"),
        (changed(0, track=""), "metadata of '1' give the track ''"),
        (changed(0, window_start="0:05"), "'1' give the window_start '0:05'; give seconds"),
        (changed(0, window_start=float("inf")), "window_start inf"),
        (changed(0, window_start=True), "window_start True"),
        (changed(12, track="d", window_start=5.0), "'1' and 'c' are captions of one window .*'d'"),
    ],
)
@pytest.mark.parametrize("as_column", [False, True])
def test_rows_that_are_no_units_of_one_track(described, words, as_column):
    if described[3].get("track") == "a":
        described[3]["window_start"] = 40.0
    with pytest.raises(InputError, match=words):
        units.tracks_of(corpus(described=described, as_column=as_column))


def test_units_that_are_read_when_they_are_asked_for_are_those_of_arrays():
    one, other = corpus(), corpus(as_column=True)
    for found, wanted in zip(units.tracks_of(other), units.tracks_of(one), strict=True):
        np.testing.assert_array_equal(found, wanted)
    tracks = units.tracks_of(one)
    drawn = [units.outline(c, tracks).examples for c in (one, other)]
    for name in ("latent", "mask"):
        np.testing.assert_array_equal(*(np.asarray(getattr(x, name)) for x in drawn))


def test_n_and_fisher_tracks_are_compared_with_tracks():
    model, five, good = test_settings.MODEL, test_settings.CORPUS, test_settings.GOOD
    starts = [("a", 0.0), ("a", 1.0), ("b", 0.0), ("b", 1.0), ("c", 0.0)]
    found = five._replace(metadata=tuple({"track": t, "window_start": s} for t, s in starts))
    refuse(model, found, five, good._replace(corpus_size=3))
    with pytest.raises(InputError, match="N = 2 is smaller than the 3 training tracks given"):
        refuse(model, found, five, good._replace(corpus_size=2))
    refuse(model, found, five, good._replace(fisher_tracks=3))
    with pytest.raises(InputError, match="fisher_tracks = 4; give 1 to 3"):
        refuse(model, found, five, good._replace(fisher_tracks=4))
