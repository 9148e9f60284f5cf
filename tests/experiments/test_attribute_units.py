"""The entry point on a dataset whose tracks have several windows and captions."""

import csv
import json

import numpy as np
import pytest

from experiments import attribute, synthetic_default
from experiments import attribute_outputs as outputs
from tda_jax import store
from tda_jax.corpus import dataset
from tda_jax.corpus.arrays import read_arrays
from tda_jax.errors import InputError
from tda_jax.evaluation.small_unet import small_unet
from tda_jax.models.denoiser import Condition
from tda_jax.models.export import save_pipeline
from tests.experiments import arrays_card

# (id, track, member, start, captions)
ROWS = [
    ("long@0", "long", True, 0.0, ("slow", "calm")),
    ("long@8", "long", True, 8.0, ("slow", "calm")),
    ("short", "short", True, 0.0, ("fast",)),
    ("other@2", "other", True, 2.0, ("loud",)),
    ("unseen", "unseen", False, 0.0, ("odd",)),
    ("unheard", "unheard", False, 0.0, ("odd",)),
]
HEARD = np.random.default_rng(1).standard_normal((6, 2, 4)).astype(np.float32)
UNITS = ["long@0 caption 1", "long@0 caption 2", "long@8 caption 1", "long@8 caption 2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model that was not trained, and a dataset of the synthetic arrays' latents and texts."""
    workdir = tmp_path_factory.mktemp("units")
    synthetic_default.make_corpus(workdir / "synthetic", arrays_card.shrunk(workdir).synthetic)
    unet = small_unet(0)
    save_pipeline(workdir / "synthetic" / "model", synthetic_default._pipeline(unet, unet.params))
    data = read_arrays(workdir / "synthetic" / "corpus").examples
    used, rows = 0, []
    for i, (name, track, member, start, captions) in enumerate(ROWS):
        texts = slice(used, used + len(captions))
        used = texts.stop if start == 0.0 else used
        condition = Condition(None, data.condition.text[texts], data.condition.text_mask[texts])
        mean, about = data.latent[i], {"artist": track.upper()}
        row = dataset.Row(
            *(name, track, member, start, mean, np.ones_like(mean)),
            *(HEARD[i], 8, captions, condition, about),
        )
        rows.append(row)
    sides = [r for r in rows if r.member], [r for r in rows if not r.member]
    dataset.write_dataset(workdir / "data", *sides, {"of": "a test"})
    return workdir


def card(made, workdir, **changes):
    given = {"corpus": str(made / "data"), "corpus_size": 3, "query_ids": "short"}
    given |= {"layout": "CHW"}  # the layout is of arrays
    return arrays_card.folders(workdir, made, **given | changes)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def ran(made, tmp_path_factory):
    """A run with a unit of the long track, and a track by its name, as queries."""
    workdir, wanted = tmp_path_factory.mktemp("out"), json.dumps([UNITS[2], "other"])
    changes = {"method": "exact", "frames": True, "rate": 0.5, "query_ids": wanted}
    return workdir, attribute.run(card(made, workdir, **changes))


def means(kept, values):
    """By track, the mean over the captions of each window, and over windows; and each window's."""
    by_id = dict(zip(kept.ids, values, strict=True))
    long = [sum(by_id[i] for i in UNITS[k : k + 2]) / 2 for k in (0, 2)]
    found = {"long": sum(long) / 2, "other": by_id["other@2"]}
    return found | {name: by_id[name] for name in ("short", "unseen", "unheard")}, long


def test_scores_are_of_tracks(ran):
    workdir, result = ran
    assert [query["id"] for query in result["queries"]] == ["long@8 caption 1", "other@2"]
    before = store.load_store(workdir / "before")
    assert set(before.ids) == {*UNITS, "short", "other@2", "unseen", "unheard"}
    for query in result["queries"]:
        folder = workdir / query["folder"]
        losses = [store.read(s)["loss"] for s in (before, store.load_store(folder / "sweep"))]
        rise, windows = means(before, losses[1].astype(np.float64) - losses[0])
        error = {n: np.sqrt((x.var(0, ddof=1) / len(x)).sum()) / 10 for n, x in rise.items()}
        rows = rows_of(folder / "scores.csv")
        assert [r["id"] for r in rows] == sorted(rise, key=lambda n: -rise[n].mean())
        for row in rows:
            name = row["id"]
            assert float(row["score"]) == pytest.approx(rise[name].mean(), rel=1e-9)
            assert float(row["standard_error"]) == pytest.approx(error[name], rel=1e-9)
            assert row["artist"] == name.upper()
            assert row["member"] == str(name in ("long", "short", "other")).lower()
            best = [w.mean() for w in windows] if name == "long" else [rise[name].mean()]
            assert float(row["score_max"]) == pytest.approx(max(best), rel=1e-9)
            start = {"long": [0.0, 8.0][int(np.argmax(best))], "other": 2.0}.get(name, 0.0)
            assert float(row["max_start"]) == start
        (long,) = (row for row in rows if row["id"] == "long")
        assert json.loads(long["caption"]) == ["slow", "calm"]
        own = {"long@8 caption 1": "long", "other@2": "other"}[query["id"]]
        (row,) = (row for row in rows if row["id"] == own)
        assert (str(query["self_rank"]), row["q_value"]) == (row["rank"], "")
        assert query["own"] == own


def test_similarities_stand_beside_the_scores(ran):
    workdir, result = ran
    # Units are windows and captions, so the long track's windows count twice each.
    twice = np.concatenate([HEARD[[0, 0, 1, 1]], HEARD[2:]]).reshape(8, -1).astype(np.float64)
    z = (twice - twice.mean(axis=0)) / twice.std(axis=0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    alike = z @ z[2]  # to the second window of the long track
    wanted = {"long": alike[:4].mean(), "short": alike[4], "other": alike[5]}
    rows = rows_of(workdir / result["queries"][0]["folder"] / "scores.csv")
    for row in rows:
        if row["id"] in wanted:
            assert float(row["log_mel_similarity"]) == pytest.approx(wanted[row["id"]], rel=1e-6)
        assert -1.0 <= float(row["latent_similarity"]) <= 1.0 + 1e-9
        assert -1.0 <= float(row["condition_similarity"]) <= 1.0 + 1e-9
    names = list(rows[0])
    assert names.index("max_start") < names.index("latent_similarity") < names.index("artist")


def test_frames_are_of_units_in_the_order_of_the_tracks(ran):
    workdir, result = ran
    folder = workdir / result["queries"][0]["folder"]
    stores = [store.load_store(p) for p in (workdir / "before", folder / "sweep")]
    before, after = (store.read(s)["frames"].astype(np.float64) for s in stores)
    named, maps = rows_of(folder / "frame_rise.csv"), np.load(folder / "frame_rise.npy")
    tracks = [row["id"] for row in rows_of(folder / "scores.csv")]
    units = [UNITS if t == "long" else ["other@2"] if t == "other" else [t] for t in tracks]
    assert [row["id"] for row in named] == [name for some in units for name in some]
    for row, one in zip(named, maps, strict=True):
        i = stores[0].ids.index(row["id"])
        np.testing.assert_array_equal(one, after[i] - before[i])
    first = next(row for row in named if row["id"] == UNITS[3])
    assert list(first.values()) == ["long", UNITS[3], "8.0", "calm"]


def test_the_summary_counts_tracks(ran):
    workdir, _ = ran
    summary = json.loads((workdir / "summary.json").read_text())
    counted = {name: summary[name] for name in ("tracks", "decoys", "windows", "captions")}
    assert counted == {"tracks": 3, "decoys": 2, "windows": 6, "captions": 6}
    assert (summary["unscored_tracks"], summary["left_out_units"]) == (0, 0)
    assert summary["queries"][0]["scored"] == 5
    assert summary["decoy_match"]["valid_frames"] == {"standardised": None, "standard_error": None}
    assert not any("are few" in line for line in summary["warnings"])  # as they are for 6 units


def test_a_dataset_of_queries(made, tmp_path):
    given = attribute._read(card(made, tmp_path, query_ids="", queries=str(made / "data")))[1]
    assert set(given.queries.ids) == set(given.corpus.ids)
    said = "3 tracks of N = 3, 2 decoys (6 windows, 6 captions: 8 units), 8 queries; linearised"
    assert outputs.describe(given, {}).startswith(said)
    without = attribute._read(card(made, tmp_path, corpus_size=0))[1]
    assert without.settings.corpus_size == 3  # tracks, and not the six units of members


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"query_ids": "long"},
            r"'long' is a track of 4 windows and .*\['long@0 caption 1', .*2'\]",
        ),
        ({"query_ids": "other,other@2"}, "name a track twice"),
        ({"query_ids": "lon"}, "has no track 'lon'; its ids look like"),
        ({"corpus_size": 2}, "N = 2 is smaller than the 3 training tracks given"),
    ],
)
def test_what_cannot_be_asked(made, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        attribute.run(card(made, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_a_part_of_a_row_is_not_asked_about(made, tmp_path):
    (row, *_) = dataset.read_rows(made / "data")
    partly = row._replace(metadata={"query_frames": [0, 2]})
    dataset.write_dataset(tmp_path / "queries", [partly], [], {"of": "a test"})
    words = "query_frames for 'long@0 caption 1', but a dataset's rows are asked about as a whole"
    with pytest.raises(InputError, match=words):
        attribute.run(card(made, tmp_path, query_ids="", queries=str(tmp_path / "queries")))
