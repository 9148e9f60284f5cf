import numpy as np
import pytest

from tda_jax import devices, params, store
from tda_jax.attribution import by_unlearning, unlearn
from tda_jax.attribution.group_directions import in_group, scrambled
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.errors import InputError
from tda_jax.evaluation import controls_passes, controls_seed, controls_stages
from tda_jax.evaluation.network import model_of
from tda_jax.examples import take
from tests.evaluation import few_parameters

PATTERN = "block/.*"


def trees(blocks=()):
    rng = np.random.default_rng(3)
    flat = params.flatten(few_parameters.network().params)
    gradient = {p: rng.standard_normal((*blocks, *x.shape)) for p, x in flat.items()}
    return gradient, {p: rng.random(x.shape) for p, x in flat.items()}


@pytest.mark.parametrize("blocks", [(), (3,)])
def test_a_group_moves_as_it_does_alone_and_nothing_else_does(blocks):
    gradient, fisher = trees(blocks)
    moved = in_group(gradient, fisher, PATTERN, 0.2, 50)
    inside, outside = params.split(fisher, PATTERN)
    alone = unlearn.preconditioned({p: gradient[p] for p in inside}, inside, 0.2, 50)
    assert inside
    assert outside
    for path in inside:
        np.testing.assert_array_equal(moved[path], alone[path])
    for path in outside:
        assert moved[path].shape == gradient[path].shape
        assert not moved[path].any()


def test_the_damping_is_the_groups_own():
    gradient, fisher = trees()
    other = {p: x if p.startswith("block") else 1000 * x for p, x in fisher.items()}
    first, second = (in_group(gradient, f, PATTERN, 0.2, 50) for f in (fisher, other))
    for path in first:
        np.testing.assert_array_equal(first[path], second[path])


def test_a_group_of_nothing_is_refused():
    with pytest.raises(InputError, match="selects none"):
        in_group(*trees(), "nowhere/.*", 0.2, 50)


def test_scrambling_keeps_sizes_and_turns_half_of_the_signs():
    gradient, _ = trees()
    found = scrambled(gradient, 0, "a query")
    turned = np.concatenate([(found[p] != gradient[p]).ravel() for p in gradient])
    for path in gradient:
        np.testing.assert_array_equal(np.abs(found[path]), np.abs(gradient[path]))
    assert abs(turned.mean() - 0.5) < 4 * 0.5 / np.sqrt(turned.size)


def test_the_signs_are_those_of_the_query_and_the_seed_alone():
    gradient, fisher = trees()
    signs = {
        p: scrambled({q: np.ones_like(x) for q, x in gradient.items()}, 0, "a")[p] for p in gradient
    }
    part = scrambled(in_group(gradient, fisher, PATTERN, 0.2, 50), 0, "a")
    whole = in_group(gradient, fisher, PATTERN, 0.2, 50)
    for path in gradient:
        np.testing.assert_array_equal(part[path], whole[path] * signs[path])
    for other in (scrambled(gradient, 0, "b"), scrambled(gradient, 1, "a")):
        same = scrambled(gradient, 0, "a")
        assert any((other[p] != same[p]).any() for p in gradient)


@pytest.mark.slow
def test_zeros_elsewhere_score_as_moving_the_group_alone(tmp_path):
    group = "cross_attention_kv"
    plan = few_parameters.plan(
        replicates=4, own_replicates=4, draw_counts=(40,), groups=("all", group)
    )
    network, used = few_parameters.network(), devices.local_devices(1)
    passes = controls_passes.make(network, plan, 40, used)
    c = controls_seed.context(0, plan, network, passes, tmp_path / "controls", lambda *_: None)
    at = controls_seed.level(c, plan.updates[-1])
    query = c.queries[0]
    ours = controls_stages.steps(c, at, query)

    trained = params.merge(controls_seed.trained(c)[plan.updates[-1]])
    model = model_of(network, trained, "trained")
    settings = Settings(
        plan.members,
        group,
        query_draws=plan.query_draws,
        blocks=plan.query_draws // plan.block_draws,
        fisher_draws=plan.fisher_draws,
        damping=plan.damping,
        replicates=plan.replicates,
        strata=plan.strata,
        rise=plan.rise,
    )
    queries = take(c.corpus, [c.corpus.ids.index(query)])
    compute = Compute(used, 16, 4, 1, 100)
    for method in ("linearised", "exact"):
        run = by_unlearning.run(
            model, c.corpus, queries, settings._replace(method=method), compute, tmp_path / method
        )
        theirs = store.read(run.sweeps[query])
        _, rate = run.directions[query]
        np.testing.assert_allclose(ours["rate"][2], rate, rtol=1e-4)
        if method == "linearised":
            for name, field in (("a", "a"), ("b", "b_step")):
                scale = np.abs(theirs[field]).max()
                np.testing.assert_allclose(ours[name][:, 2], theirs[field], atol=1e-4 * scale)
        else:
            rise = theirs["loss"] - store.read(run.before)["loss"]
            mine = ours["after"][1, 0] - controls_seed.before(c, at)
            np.testing.assert_allclose(mine, rise, atol=1e-3 * np.abs(rise).max())
