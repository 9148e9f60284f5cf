import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tda_jax import examples, keys
from tda_jax import params as tree
from tda_jax.attribution.contract import loss_of
from tda_jax.baselines import forgetting
from tda_jax.baselines.forgetting import MLP, Ascent, forget, retained
from tda_jax.baselines.mucs import mucs, noisy_draws, skew
from tda_jax.errors import InputError
from tests.baselines import methods

PATTERN, NULL = "attention/.*", 1e3
PLAN = Ascent(1e-2, NULL, PATTERN, 2, 1, 4, 6, keys.Draws(1, 10))


def losses_plainly(task, moved, example, root, name, draws, strata):
    """One loss after another, of one example."""
    _, rest = tree.split(task.model.params, PATTERN)
    words, found = keys.track_words([name])[0], []
    example = jax.tree.map(jnp.asarray, example)
    for draw in draws:
        t, noise = keys.timestep_and_noise(root, words, draw, strata, 100, example.latent.shape)
        found.append(loss_of(task.model.terms(tree.merge(moved, rest), example, t, noise)))
    return found


@functools.cache
def gradient_plainly():
    """Of the objective of one step, by JAX's own derivative."""
    task, plan = methods.task(), PLAN
    roots = {d: keys.root(task.seed, d) for d in (keys.Domain.RETAIN, keys.Domain.QUERY)}

    def objective(moved, kept, asked, step, null):
        total, name = 0.0, "query 0"
        for i, one in enumerate(kept):
            one = one._replace(mask=jnp.ones_like(one.mask))  # padding is trained on
            draw, root = step * plan.retain + i, roots[keys.Domain.RETAIN]
            total += losses_plainly(task, moved, one, root, name, [draw], plan.retain)[0]
        draws, root = [step * plan.asked + i for i in range(plan.asked)], roots[keys.Domain.QUERY]
        own = losses_plainly(task, moved, asked, root, name, draws, plan.asked)
        return total / plan.retain - 0.2 * jnp.minimum(sum(own) / plan.asked, null)

    return jax.jit(jax.grad(objective))


def ascend_plainly(task, plan, query, null, steps):
    """The parameters after some steps: a plain loop with optax."""
    moved, _ = tree.split(task.model.params, plan.pattern)
    optimiser = optax.adamw(plan.learning_rate, weight_decay=plan.weight_decay)
    state = optimiser.init(moved)
    members = sorted(i for i, m in zip(task.corpus.ids, task.corpus.members, strict=True) if m)
    asked = jax.tree.map(lambda x: x[0], query.examples)
    for step in range(steps):
        chosen = [members[i] for i in retained(members, plan.retain, task.seed, "query 0", step)]
        rows = [task.corpus.ids.index(i) for i in chosen]
        kept = [jax.tree.map(lambda x, r=r: x[r], task.corpus.examples) for r in rows]
        gradient = gradient_plainly()(moved, kept, asked, np.int32(step), np.float32(null))
        with jax.numpy_dtype_promotion("standard"):
            change, state = optimiser.update(gradient, state, moved)
        moved = optax.apply_updates(moved, change)
    return moved


def queries():
    """The first is padded."""
    return methods.corpus(2, 3, "query", 0)


@pytest.mark.parametrize("null", [NULL, 1e-3], ids=["pushed", "bounded"])
def test_two_steps_are_those_of_a_plain_loop(monkeypatch, null):
    monkeypatch.setattr(forgetting, "_REACHED", np.inf)  # only the bound on the loss is at work
    task, query = methods.task(batch=2), examples.take(queries(), [0])
    assert query.examples.mask.min() == 0
    plan = PLAN._replace(untrained=null)
    made = forgetting.prepare(plan, task)
    done = forget(plan, task, made, query)
    wanted = ascend_plainly(task, plan, query, null, 2)
    assert done.steps == 2
    for path, x in wanted.items():
        np.testing.assert_allclose(done.moved[path], x, atol=1e-5, rtol=0)
        assert np.abs(x - made.moved[path]).max() > 1e-2  # two steps at that learning rate
    if null < 1:  # beyond the bound the query has no say
        other = examples.take(queries(), [1])._replace(ids=query.ids)
        same = forget(plan, task, made, other)
        for path, x in done.moved.items():
            np.testing.assert_array_equal(same.moved[path], x)


def test_a_query_is_forgotten_nearly_as_far_as_the_untrained_model():
    task, told = methods.task(8), {}
    plan = Ascent(3e-2, 1.0, PATTERN, 60, 3, 4, 6, keys.Draws(2, 10))
    first = forget(plan, task, forgetting.prepare(plan, task), queries()).losses[0]
    plan = plan._replace(untrained=1.15 * first)
    method = mucs(plan, keys.Draws(1, 10), lambda name, done: told.__setitem__(name, done))
    found = method.score(task, method.prepare(task), examples.take(queries(), [0]))
    done = told["query 0"]
    assert 0 < done.steps < 60
    assert done.steps % 3 == 0
    assert len(done.losses) == done.steps // 3 + 1
    assert done.losses[-1] >= 0.95 * done.null > done.losses[-2]
    assert done.null == 1.15 * first
    assert np.isfinite(found["MUCS"]).all()
    plain = {"steps": done.steps, "losses": list(done.losses), "null": done.null}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert {type(x) for x in (done.null, *done.losses)} == {float}  # numpy's pass for one


def test_the_null_is_that_of_untrained_parameters_over_the_same_draws():
    task, query = methods.task(), examples.take(queries(), [1])
    untrained = methods.untrained()
    plan = PLAN._replace(untrained=untrained)
    done = forget(plan, task, forgetting.prepare(plan, task), query)
    own, root = methods.task(), keys.root(methods.SEED, keys.Domain.CALIBRATION)
    one = jax.tree.map(lambda x: x[0], query.examples)
    for params, value in ((untrained, done.null), (task.model.params, done.losses[0])):
        own = own._replace(model=own.model._replace(params=params))
        moved, _ = tree.split(params, PATTERN)
        each = losses_plainly(own, moved, one, root, "query 1", range(10), 10)
        assert value == pytest.approx(float(np.mean(each)), rel=1e-5)


def test_scores_are_means_over_the_noisy_draws_that_all_tracks_share():
    task, told = methods.task(), []
    method = mucs(PLAN, keys.Draws(2, 10), lambda name, done: told.append(done.moved))
    query = examples.take(queries(), [1])
    found = method.score(task, method.prepare(task), query)
    start, _ = tree.split(task.model.params, PATTERN)
    root = keys.root(methods.SEED, keys.Domain.SWEEP)
    draws = [d for d in range(20) if d % 10 >= 3]
    for i in (0, 4):
        one = jax.tree.map(lambda x, i=i: x[i], task.corpus.examples)
        one = one._replace(mask=np.ones_like(one.mask))
        before, after = (
            np.array(losses_plainly(task, m, one, root, "draws of all tracks", draws, 10), float)
            for m in (start, told[0])
        )
        wanted = {
            "MUCS": [(u - v) / (u + v + 0.001) for u, v in zip(after, before, strict=True)],
            "MUCS difference": list(after - before),
        }
        for variant, each in wanted.items():
            assert found[variant][0, i] == pytest.approx(sum(each) / 14, rel=1e-3, abs=1e-6)


def test_the_ratio_and_the_noisy_draws():
    after, before = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[1.0, 0.0], [2.0, 1.0]])
    np.testing.assert_allclose(skew(after, before), [2 / 4.001 / 2, -1 / 3.001 / 2])
    assert noisy_draws(keys.Draws(2, 10)).tolist() == [*range(3, 10), *range(13, 20)]
    assert noisy_draws(keys.Draws(1, 20)).tolist() == list(range(6, 20))
    for draw in noisy_draws(keys.Draws(2, 10)).tolist():
        key = keys.draw_key(keys.root(0, keys.Domain.SWEEP), keys.track_words(["x"])[0], draw)
        assert keys.draw_timestep(key, draw % 10, 10, 1000) >= 300


def test_a_query_that_is_no_better_than_untrained_has_no_scores():
    task = methods.task()
    method = mucs(PLAN._replace(untrained=1e-6), keys.Draws(1, 10))
    found = method.score(task, method.prepare(task), queries())
    assert all(np.isnan(x).all() and x.shape == (2, methods.TRACKS) for x in found.values())


def test_retain_batches_are_those_of_seed_query_step_and_set():
    ids = [f"m {i}" for i in range(30)]
    batch = {ids[i] for i in retained(ids, 5, 0, "q", 7)}
    back = ids[::-1]
    assert batch == {back[i] for i in retained(back, 5, 0, "q", 7)}
    others = [retained(ids, 5, *x) for x in ((1, "q", 7), (0, "r", 7), (0, "q", 8))]
    assert all({ids[i] for i in other} != batch for other in others)
    counts = np.bincount(np.concatenate([retained(ids, 5, 0, "q", s) for s in range(600)]))
    assert len(counts) == 30
    assert np.sum((counts - 100) ** 2 / 100) < 60  # chi-squared, 29 degrees, 0.1 %
    assert sorted(retained(ids[:2], 5, 0, "q", 0).tolist()) in ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1])


def test_the_default_moves_the_mlp_layers_of_a_transformer():
    block = "down_blocks/1/attentions/0/transformer_blocks/0"
    params = {f"{block}/ff/net/0/proj/kernel": 0, f"{block}/attn1/to_q/kernel": 1}
    moved, _ = tree.split({"unet": tree.merge(params)}, MLP)
    assert list(moved.values()) == [0]


def test_what_cannot_be_computed_is_refused():
    task = methods.task()
    with pytest.raises(InputError, match=r"selects none .* give `pattern` for those"):
        mucs(PLAN._replace(pattern=MLP)).prepare(task)
    bad = {"steps": 0, "every": 0, "retain": 0, "asked": 0, "learning_rate": 0.0, "untrained": 0.0}
    for name, value in bad.items():
        with pytest.raises(InputError, match=f"{name} = {value}"):
            mucs(PLAN._replace(**{name: value}))
    with pytest.raises(InputError, match="strata = 7"):
        mucs(PLAN, keys.Draws(1, 7))
    nobody = methods.corpus(decoys=methods.TRACKS)
    with pytest.raises(InputError, match="no member"):
        mucs(PLAN).prepare(methods.task(given=nobody))
    with pytest.raises(InputError, match="untrained = inf"):
        mucs(PLAN._replace(untrained=np.inf))
    empty = jax.tree.map(lambda x: np.full_like(x, np.nan), task.model.params)
    lost = PLAN._replace(untrained=empty)
    with pytest.raises(InputError, match="'query 0': its loss is nan under the untrained"):
        forget(lost, task, forgetting.prepare(lost, task), examples.take(queries(), [0]))
    wild = PLAN._replace(learning_rate=1e30)
    with pytest.raises(InputError, match=r"'query 0': its loss is .* lower learning_rate = 1e\+30"):
        forget(wild, task, forgetting.prepare(wild, task), examples.take(queries(), [0]))
