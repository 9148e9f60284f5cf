"""What a run still has to do, what it keeps on disk, and how long a draw is said to take."""

import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import devices, examples
from tda_jax.attribution import by_unlearning, passes, plan, remaining
from tda_jax.attribution.probe import probe
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.attribution.workdir import FISHER, SWEEP, job_of, query_folder
from tda_jax.errors import InputError
from tests.attribution import tiny

COMPUTE = Compute(devices.local_devices(1), 8, 4, queries_per_pass=2, chunk=4)
MODEL = tiny.model(dtype=np.float32)
CORPUS = tiny.corpus(7, dtype=np.float32)
QUERIES = examples.take(CORPUS, [0, 3, 5])
METHODS = ["linearised", "exact"]


def settings(method):
    return Settings(
        100, "attention", method, fisher_draws=3, query_draws=32, blocks=4, strata=10, rise=0.2
    )


@pytest.fixture(scope="module", params=METHODS)
def finished(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    job = job_of(MODEL, CORPUS, settings(request.param), COMPUTE, workdir)
    by_unlearning.run(MODEL, CORPUS, QUERIES, job.settings, COMPUTE, workdir)
    return job


def still(terms, example, value):
    """No gradient of the first query, or none that is finite."""
    own = example.condition[0, 0] == QUERIES.examples.condition[0, 0, 0]
    return terms._replace(prediction=jnp.where(own, value, terms.prediction))


def planned(job):
    found = plan.plan(MODEL, CORPUS, QUERIES, job.settings, COMPUTE)
    return {name: stage.pairs for name, stage in found.items()}


def test_of_a_run_that_was_not_begun_everything_is_left(finished, tmp_path):
    job = finished._replace(workdir=tmp_path / "new")
    assert remaining.left(job, QUERIES) == planned(job)
    assert not job.workdir.exists()  # it is looked at, and not made


def test_of_a_finished_run_nothing_is_left(finished):
    assert set(remaining.left(finished, QUERIES).values()) == {0}


def test_what_is_taken_away_is_left(finished):
    folder = query_folder(finished.workdir, QUERIES.ids[2])
    mark = folder / SWEEP / "done" / "00000001.json"
    kept = mark.read_bytes()
    mark.unlink()
    found = {name: n for name, n in remaining.left(finished, QUERIES).items() if n}
    mark.write_bytes(kept)
    swept = {"exact": "losses after unlearning", "linearised": "linearised sweep"}
    of_sweep = {swept[finished.settings.method]: 3 * 40}  # rows 4 to 6
    assert found == {"query gradients": 32} | of_sweep  # which went when the sweep was whole


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_query_that_cannot_be_unlearned_leaves_nothing(finished, tmp_path, value):
    steady = MODEL._replace(terms=lambda *given: still(tiny.terms(*given), given[1], value))
    job = job_of(steady, CORPUS, finished.settings, COMPUTE, tmp_path)
    made = by_unlearning.run(steady, CORPUS, QUERIES, job.settings, COMPUTE, tmp_path)
    assert [name for name, _ in made.skipped] == [QUERIES.ids[0]]
    assert set(remaining.left(job, QUERIES).values()) == {0}


def test_a_workdir_of_something_else_is_refused(finished):
    other = finished._replace(settings=finished.settings._replace(seed=1))
    with pytest.raises(InputError, match="seed"):
        remaining.left(other, QUERIES)


def test_bytes_on_disk_are_those_of_arrays(finished):
    arrays = sum(
        path.stat().st_size
        for path in finished.workdir.rglob("*")
        if path.is_file() and "fields" in path.parts and path.name != "zarr.json"
    )
    assert not [*finished.workdir.rglob("gradient/*"), *finished.workdir.rglob("step*")]
    fisher = (finished.workdir / FISHER).stat().st_size
    each = finished.settings.blocks + (finished.settings.method == "exact")
    at_most = fisher * (1 + 2 * each)  # of the two queries of a pass
    s = finished.settings
    fields = passes.linear_fields(s) if s.method == "linearised" else passes.loss_fields(s, 8)
    of_a_sweep = 7 * 4 * sum(int(np.prod(field.shape)) for field in fields)
    said = remaining.disk_bytes(finished, len(QUERIES.ids))
    assert said - remaining.disk_bytes(finished, 2) == of_a_sweep  # and no gradient more
    assert said <= arrays * 8 / 7 + at_most  # a chunk is padded
    assert said >= arrays * 7 / 8 + at_most - 2000 * (1 + 2 * each)  # heads of files


@pytest.mark.parametrize("method", METHODS)
def test_every_stage_has_its_time(method):
    found = probe(MODEL, CORPUS, QUERIES, settings(method), COMPUTE)
    assert found.keys() == plan.plan(MODEL, CORPUS, QUERIES, settings(method), COMPUTE).keys()
    assert all(0 < seconds < 1 for seconds in found.values())


def test_flops_of_a_draw_do_not_depend_on_the_batch():
    few, many = (
        plan.plan(MODEL, CORPUS, QUERIES, settings("exact"), COMPUTE._replace(batch=batch))
        for batch in (8, 40)
    )
    stage = "losses after unlearning"
    assert few[stage].flops == pytest.approx(many[stage].flops, rel=0.2)
    assert few["Fisher information"].flops > 1.5 * few[stage].flops  # there and back, for a group
