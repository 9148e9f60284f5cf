"""Unlearning in the form of its rivals gives what `attribution.by_unlearning` gives."""

import numpy as np
import pytest

from tda_jax import devices, examples, keys, store
from tda_jax.attribution import by_unlearning, scores
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.baselines import unlearning, ways
from tda_jax.baselines.contract import Task
from tda_jax.baselines.ways import Plan, Step, Variant, Way
from tda_jax.errors import InputError
from tda_jax.evaluation.network import model_of
from tda_jax.evaluation.synthetic import synthetic_corpus
from tests.evaluation import few_parameters

WAY, ALL = Way("transformer", 0.1), Way("all", 1.0)
PLAN = Plan(
    (WAY, ALL, Way("all", 0.1, "probe"), Way("transformer", 0.1, scrambled=True)),
    (Step(WAY, 0.3), Step(ALL, 0.1), Step(WAY, 0.3, learn=True), Step(WAY, 0.3, shared=True)),
    (0.1, 0.3),
    scores.WEIGHTINGS,
    fisher_draws=4,
    query_draws=40,
    blocks=2,
    draws=keys.Draws(4, 10),
)


@pytest.fixture(scope="module")
def task():
    network = few_parameters.network()
    corpus = synthetic_corpus(0, 3, 2, 2, 1, 1)
    members = int(corpus.members.sum())
    model = model_of(network, network.params, "few")
    return Task(model, corpus, members, 5, devices.local_devices(1), 40)


@pytest.fixture(scope="module")
def queries(task):
    return examples.take(task.corpus, [0, 3])


@pytest.fixture(scope="module")
def found(task, queries):
    method = unlearning.unlearning(PLAN)
    return method.score(task, method.prepare(task), queries)


def test_every_variant_is_there_once(found, queries, task):
    assert set(found) == set(ways.variants(PLAN))
    assert all(x.shape == (len(queries.ids), len(task.corpus.ids)) for x in found.values())
    assert len({v.name for v in ways.variants(PLAN).values()}) == len(found) == 60


def production(task, queries, workdir, way, method, rise):
    settings = Settings(
        task.corpus_size,
        way.group,
        method,
        rise,
        damping=way.damping,
        fisher_draws=PLAN.fisher_draws,
        query_draws=PLAN.query_draws,
        blocks=PLAN.blocks,
        replicates=PLAN.draws.replicates,
        strata=PLAN.draws.strata,
        seed=task.seed,
    )
    compute = Compute(task.used, batch=40)
    return by_unlearning.run(task.model, task.corpus, queries, settings, compute, workdir)


@pytest.mark.parametrize(("way", "rise"), [(WAY, 0.3), (ALL, 0.1)])
def test_exact_scores_are_those_of_the_main_job(found, task, queries, tmp_path, way, rise):
    run = production(task, queries, tmp_path, way, "exact", rise)
    before = store.read(run.before)["loss"]
    for i, name in enumerate(queries.ids):
        values = scores.exact(before, store.read(run.sweeps[name])["loss"])
        for weighting in scores.WEIGHTINGS:
            wanted = scores.score(values, weighting, before).value
            got = found[Variant("exact", way, rise, weighting).name][i]
            np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-6 * np.abs(wanted).max())


def test_parts_are_those_of_the_main_job(found, task, queries, tmp_path):
    run = production(task, queries, tmp_path, WAY, "linearised", 0.3)
    for i, name in enumerate(queries.ids):
        kept, rate = store.read(run.sweeps[name]), run.directions[name][1]
        parts = scores.linearised(kept["a"], kept["b"], rate)
        wanted = {"odd": parts.odd / rate, "even": parts.even / rate**2, "both": parts.total}
        for rule, values in wanted.items():
            one = Variant(rule, WAY, 0.3 if rule == "both" else None, "uniform")
            mean = scores.score(values).value
            close = {"rtol": 2e-3, "atol": 2e-5 * np.abs(mean).max()}
            np.testing.assert_allclose(found[one.name][i], mean, **close)


def test_learning_goes_the_other_way_and_scrambling_another(found):
    there, back = (found[Variant(rule, WAY, 0.3, "uniform").name] for rule in ("exact", "learnt"))
    odd, even = (found[Variant(rule, WAY, None, "uniform").name] for rule in ("odd", "even"))
    half = (there - back) / 2  # the odd part, but for the third order
    for h, o in zip(half, odd, strict=True):
        assert np.corrcoef(h, o)[0, 1] > 0.99
    mixed = found[Variant("odd", PLAN.ways[3], None, "uniform").name]
    assert not np.allclose(mixed, odd, rtol=0.1)
    assert not np.allclose(even, odd, rtol=0.1)


def test_shared_draws_are_one_set_for_all(task, queries):
    corpus = task.corpus
    again = examples.take(corpus, [1])._replace(ids=("a copy under another id",))
    twice = task._replace(corpus=examples.joined(corpus, again))
    method = unlearning.unlearning(PLAN)
    got = method.score(twice, method.prepare(twice), queries)
    first, second = (twice.corpus.ids.index(name) for name in (corpus.ids[1], again.ids[0]))
    shared = got[Variant("exact", WAY, 0.3, "uniform", shared=True).name]
    own = got[Variant("exact", WAY, 0.3, "uniform").name]
    np.testing.assert_array_equal(shared[:, first], shared[:, second])
    assert (np.abs(own[:, first] - own[:, second]) > 1e-4).all()


def test_a_variant_takes_what_its_method_does_where_it_is_alone(task):
    one = PLAN._replace(ways=(WAY,), steps=())
    odd = Variant("odd", WAY, None, "uniform")
    assert ways.passes_of(one, task, odd) == unlearning.unlearning(one).passes(task)._replace(
        shared=3.0 * task.corpus_size * PLAN.fisher_draws  # without losses before, which it has
    )
    exact = Variant("exact", WAY, 0.3, "uniform")
    n, count = len(task.corpus.ids), PLAN.draws.count
    added = unlearning.unlearning(one._replace(steps=(PLAN.steps[0],))).passes(task).query
    alone, both = (ways.passes_of(PLAN, task, v).query for v in (odd, exact))
    assert added - alone == n * count  # a sweep for each exact step
    assert alone - both == n * count * PLAN.blocks  # in place of a tangent for each block


def test_a_step_along_no_way_is_refused():
    with pytest.raises(InputError, match="none of the plan's ways"):
        unlearning.unlearning(PLAN._replace(ways=(ALL,)))
