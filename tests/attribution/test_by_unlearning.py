"""The composed run: passes, several queries, several steps, what is shared and what is refused."""

from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import columns, devices, examples, store
from tda_jax.attribution import by_unlearning, information, prepare, unlearn, workdir
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.columns import Column
from tda_jax.errors import InputError
from tests.attribution import tiny

MODEL = tiny.model(dtype=np.float32)
CORPUS = tiny.corpus(9, dtype=np.float32)
LINEAR = Settings(50, "attention", query_draws=32, fisher_draws=3, strata=10, rise=0.2)
EXACT = LINEAR._replace(method="exact")
COMPUTE = Compute(devices.local_devices(1), batch=20, fisher_batch=6, queries_per_pass=2, chunk=4)


def run(workdir, settings=LINEAR, queries=(1, 4, 7), model=MODEL, compute=COMPUTE, corpus=CORPUS):
    stages = []
    asked = queries if isinstance(queries, examples.Corpus) else examples.take(corpus, queries)
    got = by_unlearning.run(
        model, corpus, asked, settings, compute, workdir, lambda *x: stages.append(x)
    )
    return got, stages


@contextmanager
def blocks_of(size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_BLOCK", size)
        patch.setattr(information, "_LEAST", 3)
        yield


def rise(got, query):
    kept = store.read(got.sweeps[query])
    if got.before is not None:
        return (kept["loss"] - store.read(got.before)["loss"]).mean((1, 2))
    _, rate = got.directions[query]
    return (rate * kept["a"] + rate**2 * kept["b_step"]).mean((1, 2))


def test_queries_per_pass_change_no_score(tmp_path):
    """Also where the last pass has fewer queries than the others."""
    for method in (LINEAR, EXACT):
        one, _ = run(
            tmp_path / f"one {method.method}", method, compute=COMPUTE._replace(queries_per_pass=1)
        )
        two, _ = run(tmp_path / f"two {method.method}", method)
        assert list(one.sweeps) == list(two.sweeps) == ["track 1", "track 4", "track 7"]
        for query in one.sweeps:
            np.testing.assert_allclose(rise(one, query), rise(two, query), atol=2e-6)


@pytest.mark.parametrize("settings", [LINEAR, EXACT, LINEAR._replace(mask_unlearn=False)])
def test_a_corpus_that_is_read_block_by_block_gives_the_bits_of_one_in_memory(tmp_path, settings):
    asked = []

    def column(x):
        def read(rows):
            asked.append(len(rows))
            return x[rows]

        return Column(x.shape, x.dtype, read)

    lazy = CORPUS._replace(examples=jax.tree.map(column, CORPUS.examples))
    queries = examples.take(CORPUS, [1, 4])
    with blocks_of(4 * CORPUS.examples.latent[0].nbytes):
        there, _ = run(tmp_path / "there", settings, queries)
        read, _ = run(tmp_path / "read", settings, queries, corpus=lazy)
    assert max(asked) <= 4  # neither a check nor a pass had more of it in memory
    for query, kept in there.sweeps.items():
        wanted, found = store.read(kept), store.read(read.sweeps[query])
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values)


def test_before_is_computed_once_for_all_queries(tmp_path):
    _, stages = run(tmp_path, EXACT)
    assert [x for x in stages if x[0] == "losses before"][-1] == ("losses before", 9, 9)
    assert sum(x == ("losses before", 9, 9) for x in stages) == 1
    _, stages = run(tmp_path, EXACT, queries=(1, 4, 7, 8))
    done = [x for x in stages if x[0].startswith("losses")]
    assert all(stage == "losses after unlearning" for stage, *_ in done)
    assert min(x[1] for x in done) == 0  # the new query's sweep alone starts from nothing


def test_a_finished_run_computes_nothing_again(tmp_path):
    for settings in (LINEAR, EXACT):
        first, _ = run(tmp_path / settings.method, settings)
        second, stages = run(tmp_path / settings.method, settings)
        assert {x[0] for x in stages} == {"queries unlearned"}
        for query in first.sweeps:
            np.testing.assert_array_equal(rise(first, query), rise(second, query))


def test_exact_and_linearised_agree_at_a_small_step(tmp_path):
    linear, _ = run(tmp_path / "l", LINEAR._replace(rise=0.01, second_order=True))
    exact, _ = run(tmp_path / "e", EXACT._replace(rise=0.01))
    for query in linear.sweeps:
        _, rate = linear.directions[query]
        assert rate == pytest.approx(exact.directions[query][1], rel=1e-6)
        curved = rate**2 * store.read(linear.sweeps[query], ["curved"])["curved"].mean((1, 2))
        got, wanted = rise(linear, query) + curved, rise(exact, query)
        assert np.abs(got - wanted).max() < 0.01 * np.abs(wanted).max()


def test_the_query_rises_as_predicted(tmp_path):
    """The scale-free step: the query's own loss rises by a share ρ of itself, on fresh draws."""
    got, _ = run(tmp_path, EXACT._replace(rise=0.05, query_draws=512))
    before = store.read(got.before)["loss"].mean((1, 2))
    for query in got.sweeps:
        i = CORPUS.ids.index(query)
        assert rise(got, query)[i] / before[i] == pytest.approx(0.05, rel=0.25)


def test_a_negative_rate_learns_the_query(tmp_path):
    up, _ = run(tmp_path / "up", LINEAR._replace(rate=0.05))
    down, _ = run(tmp_path / "down", EXACT._replace(rate=-0.05))
    for query in up.sweeps:
        i = CORPUS.ids.index(query)
        assert rise(up, query)[i] > 0 > rise(down, query)[i]


def test_several_steps_go_further_than_one(tmp_path):
    """Δ ← Δ + lr (u(Δ) - Δ): the second step adds nearly as much again for a small rate."""
    one, _ = run(tmp_path / "one", EXACT._replace(rate=0.01))
    two, _ = run(tmp_path / "two", EXACT._replace(rate=0.01, steps=2))
    for query in one.sweeps:
        i = CORPUS.ids.index(query)
        assert 1.8 < rise(two, query)[i] / rise(one, query)[i] < 2.2


def test_a_step_that_is_lost_skips_its_query_alone(tmp_path, monkeypatch):
    usual = prepare.final_step

    def final_step(query, *rest):
        if query.ids[0] == "track 4":
            raise unlearn.UnusableQuery("query 'track 4': the step is not finite")
        return usual(query, *rest)

    monkeypatch.setattr(prepare, "final_step", final_step)
    got, _ = run(tmp_path, EXACT)
    assert list(got.sweeps) == ["track 1", "track 7"]
    assert got.skipped == [("track 4", "query 'track 4': the step is not finite")]


def test_a_query_is_a_track_by_its_latent_and_not_its_name_alone():
    queries = examples.take(CORPUS, [1, 4])
    queries.examples.latent[1, 0] += 1
    assert by_unlearning.own_rows(CORPUS, queries) == {"track 1": 1}


def test_frames_average_to_the_loss(tmp_path):
    """Over the frames of a track without padding, per-frame losses average to its loss."""
    got, _ = run(tmp_path, EXACT._replace(frames=True))
    kept = store.read(got.before)
    np.testing.assert_allclose(kept["frames"].mean(1), kept["loss"].mean((1, 2)), rtol=1e-5)
    after = store.read(got.sweeps["track 1"])
    assert np.abs(after["frames"] - kept["frames"]).max() > 1e-3


@pytest.mark.parametrize(
    "change",
    [
        {"strata": 20},
        {"seed": 1},
        {"damping": 0.2},
        {"group": "output"},
        {"corpus_size": 60},
        {"mask_sweep": True},
        {"mask_unlearn": False},
        {"fisher_draws": 4},
        {"second_order": True},
        {"method": "exact", "rate": 0.02},
        {"method": "exact", "rate": 0.01, "rise": 0.3},
        {"method": "exact", "rate": 0.01, "steps": 2},
        {"method": "exact", "rate": 0.01, "frames": True},
    ],
    ids=str,
)
def test_results_of_other_settings_are_refused(tmp_path, change, finished):
    name, value = list(change.items())[-1]
    finished = finished[change.get("method", "linearised")]
    with pytest.raises(
        InputError, match=f"{name} is .* there and .*{str(value)[:4].lower()}.* here"
    ):
        run(finished, LINEAR._replace(**change))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Working folders of finished runs, by method."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("linearised", "exact")}
    run(folders["linearised"])
    run(folders["exact"], EXACT._replace(rate=0.01))
    return folders


def test_results_of_another_model_or_corpus_are_refused(finished):
    with pytest.raises(InputError, match="checkpoint is"):
        run(finished["linearised"], model=tiny.model(1, np.float32))
    with pytest.raises(InputError, match="corpus is"):
        run(finished["linearised"], corpus=tiny.corpus(9, seed=1, dtype=np.float32))


def test_results_of_other_tracks_are_refused(tmp_path):
    """Which row is of which track decides how much it weighs in the Fisher information."""

    def of(*names):
        found = [{"track": name, "window_start": float(i)} for i, name in enumerate(names)]
        return CORPUS._replace(metadata=tuple(found))

    run(tmp_path, corpus=of(*"aaabcdefg"))
    run(tmp_path, corpus=of(*"aaabcdefg"))
    for fewer in (of(*"aabbcdefg"), of(*"abcdefghi")):
        with pytest.raises(InputError, match=r"fisher.*tracks is"):
            run(tmp_path, corpus=fewer)
    (tmp_path / "fisher.safetensors").unlink()
    with pytest.raises(InputError, match=r"sweep.*tracks is"):
        run(tmp_path, corpus=of(*"aabbcdefg"))


def test_another_rise_needs_no_other_sweep(finished):
    """One linearised pass serves every learning rate."""
    got, stages = run(finished["linearised"], LINEAR._replace(rise=0.5))
    assert {x[0] for x in stages} == {"queries unlearned"}
    assert got.directions["track 1"][1] > run(finished["linearised"])[0].directions["track 1"][1]


def test_a_query_that_cannot_be_unlearned_is_skipped_with_its_reason(tmp_path):
    bad = CORPUS.examples.condition[4, 0, 0]

    def terms(params, example, t, noise):
        good = tiny.terms(params, example, t, noise)
        hit = example.condition[0, 0] == bad
        return good._replace(prediction=jnp.where(hit, jnp.nan, good.prediction))

    got, _ = run(tmp_path, model=MODEL._replace(terms=terms, fingerprint="poisoned"))
    assert list(got.sweeps) == ["track 1", "track 7"]
    ((name, reason),) = got.skipped
    assert name == "track 4"
    assert "not finite" in reason
    assert [left[:2] for left in got.fisher["left_out"]] == [["track 4", d] for d in range(3)]
    values = store.read(got.sweeps["track 1"])["a"]
    assert np.isnan(values[CORPUS.ids.index("track 4")]).all()
    assert np.isfinite(np.delete(values, CORPUS.ids.index("track 4"), 0)).all()


def test_a_mask_over_part_of_a_query_changes_its_scores(tmp_path):
    queries = examples.take(CORPUS, [1])
    mask = queries.examples.mask.copy()
    mask[0, 3:] = 0
    part = queries._replace(
        examples=queries.examples._replace(mask=mask), metadata=({"query_frames": [0, 3]},)
    )
    whole, _ = run(tmp_path / "whole", queries=queries)
    half, _ = run(tmp_path / "half", queries=part)
    assert np.abs(rise(whole, "track 1") - rise(half, "track 1")).max() > 1e-3


@pytest.mark.parametrize("settings", [LINEAR, EXACT], ids=["linearised", "exact"])
def test_gradients_and_steps_go_once_a_sweep_is_whole(tmp_path, monkeypatch, settings):
    """And a query that is swept needs none of them again, unless a chunk is taken away."""
    first, _ = run(tmp_path, settings)
    folders = [workdir.query_folder(tmp_path, name) for name in first.sweeps]
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {"calibration.safetensors", "sweep"}
    with monkeypatch.context() as patch:
        patch.setattr(unlearn, "block_gradient", None)
        again, _ = run(tmp_path, settings, queries=(1, 4, 7))
    assert again.directions == first.directions
    assert list(again.sweeps) == list(first.sweeps)
    wanted = [rise(first, name) for name in first.sweeps]
    (folders[1] / "sweep" / "done" / "00000001.json").unlink()
    mended, _ = run(tmp_path, settings)
    for name, values in zip(first.sweeps, wanted, strict=True):
        np.testing.assert_array_equal(rise(mended, name), values)
    assert not list(tmp_path.rglob("gradient"))


def test_of_a_sweep_that_is_not_whole_the_gradients_stay(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "write_chunk", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert len(list(tmp_path.rglob("gradient/*.safetensors"))) == 2 * LINEAR.blocks


def test_a_swept_query_that_no_rate_serves_is_skipped_alone(tmp_path, monkeypatch):
    """A sweep along a direction serves every rise, but a query may have no rate for one."""
    run(tmp_path)
    rate_for = unlearn.rate_for_rise

    def refuse(a, b, loss, rise):
        if rise == 0.3 and loss == second.loss:
            raise unlearn.UnusableQuery("no rate gives such a rise")
        return rate_for(a, b, loss, rise)

    first, _ = run(tmp_path)
    (_, (second, _), _) = first.directions.values()
    monkeypatch.setattr(unlearn, "rate_for_rise", refuse)
    got, _ = run(tmp_path, LINEAR._replace(rise=0.3))
    assert got.skipped == [("track 4", "no rate gives such a rise")]
    assert list(got.sweeps) == list(got.directions) == ["track 1", "track 7"]
