"""The engine against plain loops in float64, and in float32 to its rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import devices, keys
from tda_jax.attribution import contract, fisher, linearised, sweep, unlearn
from tests.attribution import tiny

SEED, GROUP = 5, "attention"
DRAWS = keys.Draws(2, 10)
QUERY_DRAWS, BLOCKS, FISHER_DRAWS = 24, 4, 3
DAMPING, TRAINING_SET = 0.1, 50
USED = devices.local_devices(1)
BOUND = {np.float64: 1e-10, np.float32: 5e-6}  # relative to the largest value of each array


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def dtype(request):
    with jax.enable_x64(request.param is np.float64):
        yield request.param


def close(got, wanted, dtype):
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= BOUND[dtype] * np.abs(wanted).max()


def parts(dtype):
    model = tiny.model(dtype=dtype)
    return model, tiny.corpus(4, dtype=dtype), *contract.split_group(model, GROUP)


def zeros(moved):
    return {path: np.zeros_like(leaf) for path, leaf in moved.items()}


def flat64():
    model = tiny.model(dtype=np.float64)
    return contract.split_group(model, GROUP)


def one_gradient(example, t, noise):
    """The gradient of one draw of one example by autodiff of the plain model, float64."""
    moved, rest = flat64()

    def loss(moved):
        nested = {}
        for path, leaf in {**moved, **rest}.items():
            first, second = path.split("/")
            nested.setdefault(first, {})[second] = leaf
        terms = tiny.terms(nested, example, t, noise)
        weight = jnp.broadcast_to(example.mask[:, None, None], noise.shape).astype(jnp.float64)
        return jnp.sum(weight * (terms.prediction - noise) ** 2) / weight.sum()

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.grad(loss)(moved))


def loop_losses(params):
    corpus = tiny.corpus(4)
    out = np.empty((4, DRAWS.count))
    for i, track in enumerate(corpus.ids):
        for d in range(DRAWS.count):
            t, noise = tiny.draw(SEED, keys.Domain.SWEEP, track, d, DRAWS.strata)
            out[i, d] = tiny.loss_plainly(params, tiny.row(corpus, i), t, noise)
    return out.reshape(4, DRAWS.replicates, DRAWS.strata)


def loop_fisher():
    corpus, total = tiny.corpus(4), None
    for i, track in enumerate(corpus.ids):
        for d in range(FISHER_DRAWS):
            t, noise = tiny.draw(SEED, keys.Domain.FISHER, track, d, FISHER_DRAWS)
            squares = jax.tree.map(np.square, one_gradient(tiny.row(corpus, i), t, noise))
            total = squares if total is None else jax.tree.map(np.add, total, squares)
    return jax.tree.map(lambda x: x / (4 * FISHER_DRAWS), total)


def loop_gradient():
    """(B, ...) gradients of the query's blocks, track 2 being the query."""
    corpus, per_block = tiny.corpus(4), QUERY_DRAWS // BLOCKS
    blocks = []
    for block in range(BLOCKS):
        draws = range(block * per_block, (block + 1) * per_block)
        each = [
            one_gradient(
                tiny.row(corpus, 2),
                *tiny.draw(SEED, keys.Domain.QUERY, corpus.ids[2], d, per_block),
            )
            for d in draws
        ]
        blocks.append(jax.tree.map(lambda *x: sum(x) / per_block, *each))
    return jax.tree.map(lambda *x: np.stack(x), *blocks)


def loop_direction():
    squares = loop_fisher()
    damping = DAMPING * np.concatenate([x.ravel() for x in squares.values()]).mean()
    blocks = loop_gradient()
    return {p: blocks[p] / (squares[p] + damping) / TRAINING_SET for p in squares}


def nested_params(moved):
    params = tiny.params(0)
    return params | {"attention": {p.split("/")[1]: leaf for p, leaf in moved.items()}}


def directional(i, draw, u, order):
    """Derivatives of the plain NumPy network along u: central differences, Richardson's way."""
    moved, _ = flat64()
    corpus = tiny.corpus(4)
    t, noise = tiny.draw(SEED, keys.Domain.SWEEP, corpus.ids[i], draw, DRAWS.strata)
    example = tiny.row(corpus, i)

    def at(s):
        params = nested_params({p: moved[p] + s * u[p] for p in moved})
        return tiny.predict_plainly(params, example.latent, example.condition, t, noise)

    def estimate(h):
        if order == 1:
            return (at(h) - at(-h)) / (2 * h)
        return (at(h) - 2 * at(0) + at(-h)) / h**2

    weight = np.broadcast_to(example.mask[:, None, None], noise.shape) / (
        example.mask.sum() * tiny.WIDTH * tiny.CHANNELS
    )
    scale = 1.0 / max(np.abs(leaf).max() for leaf in u.values())
    h = (2e-3 if order == 1 else 1e-2) * scale
    return (4 * estimate(h / 2) - estimate(h)) / 3, at(0) - noise, weight


def engine_losses(dtype, step=None):
    model, corpus, moved, rest = parts(dtype)
    made = sweep.make_sweep(model, DRAWS, SEED, 7, USED)
    placed = sweep.place(made, moved, rest)
    step = zeros(moved) if step is None else {p: x.astype(dtype) for p, x in step.items()}
    step = sweep.displaced(made, placed, step)
    return sweep.losses(made, placed, step, corpus.examples, corpus.ids).draws


def engine_fisher(dtype):
    model, corpus, moved, rest = parts(dtype)
    made = fisher.make_fisher(model, FISHER_DRAWS, SEED, 2, USED)
    total = fisher.add(
        made,
        fisher.start(made, moved),
        fisher.place(made, moved, rest),
        corpus.examples,
        corpus.ids,
    )
    assert total.count == 4 * FISHER_DRAWS
    assert total.left_out == ()
    return fisher.information(total)


def engine_gradient(dtype):
    model, corpus, moved, rest = parts(dtype)
    made = unlearn.make_gradient(model, QUERY_DRAWS, BLOCKS, SEED, 4, USED)
    placed = unlearn.place(made, moved, rest)
    query = tiny.row(corpus, 2)
    return unlearn.query_gradient(made, placed, zeros(moved), query, corpus.ids[2])


def engine_expansion(dtype, blocks, curved=False):
    model, corpus, moved, rest = parts(dtype)
    made = linearised.make_linearised(model, DRAWS, SEED, 5, USED, dtype=dtype, curved=curved)
    placed = linearised.place(made, moved, rest)
    other = jax.tree.map(lambda x: x[::-1] * 3, blocks)
    along = linearised.place_directions(made, [blocks, other])
    return linearised.expand(made, placed, along, corpus.examples, corpus.ids)


def test_losses(dtype):
    close(engine_losses(dtype), loop_losses(tiny.params(0)), dtype)


def test_losses_after_a_step(dtype):
    step = jax.tree.map(lambda x: 10 * x.mean(0), loop_direction())
    moved, _ = flat64()
    after = loop_losses(nested_params({p: moved[p] + step[p] for p in moved}))
    close(engine_losses(dtype, step), after, dtype)
    assert np.abs(after - loop_losses(tiny.params(0))).max() > 0.01


def test_fisher(dtype):
    got, wanted = engine_fisher(dtype), loop_fisher()
    assert got.keys() == wanted.keys()
    for path in wanted:
        close(got[path], wanted[path], dtype)


def test_query_gradient(dtype):
    got, wanted = engine_gradient(dtype), loop_gradient()
    for path in wanted:
        close(got.blocks[path], wanted[path], dtype)


def test_query_loss():
    corpus = tiny.corpus(4)
    losses = [
        tiny.loss_plainly(
            tiny.params(0),
            tiny.row(corpus, 2),
            *tiny.draw(SEED, keys.Domain.QUERY, corpus.ids[2], d, QUERY_DRAWS // BLOCKS),
        )
        for d in range(QUERY_DRAWS)
    ]
    with jax.enable_x64(True):
        assert engine_gradient(np.float64).loss == pytest.approx(np.mean(losses), rel=1e-12)


def test_direction(dtype):
    got = unlearn.preconditioned(
        engine_gradient(dtype).blocks, engine_fisher(dtype), DAMPING, TRAINING_SET
    )
    wanted = loop_direction()
    for path in wanted:
        close(got[path], wanted[path], dtype)


def test_first_and_second_order_terms_against_differences_of_the_plain_network():
    u = loop_direction()
    with jax.enable_x64(True):
        got = engine_expansion(np.float64, u, curved=True)
    for i, draw in [(0, 0), (1, 7), (3, 19)]:
        at = (i, 0, draw // DRAWS.strata, draw % DRAWS.strata)
        along = []
        for k in range(BLOCKS):
            derivative, residual, weight = directional(
                i, draw, jax.tree.map(lambda x, k=k: x[k], u), 1
            )
            along.append(derivative)
        mean = sum(along) / BLOCKS
        pairs = [
            (weight * along[j] * along[k]).sum()
            for j in range(BLOCKS)
            for k in range(BLOCKS)
            if j != k
        ]
        second, _, _ = directional(i, draw, jax.tree.map(lambda x: x.mean(0), u), 2)
        # Central differences, not the loop, set these bounds.
        assert got.a[at] == pytest.approx((2 * weight * residual * mean).sum(), rel=1e-6)
        assert got.b_step[at] == pytest.approx((weight * mean**2).sum(), rel=1e-6)
        assert got.b[at] == pytest.approx(np.mean(pairs), rel=1e-6)
        assert got.curved[at] == pytest.approx((weight * residual * second).sum(), rel=1e-5)


def loop_expansion(u):
    """a, b and the leave-one-out terms by one `jvp` of one draw at a time, float64."""
    moved, _rest = flat64()
    corpus = tiny.corpus(4)
    firsts = np.empty((4, DRAWS.count, BLOCKS))
    gram = np.empty((4, DRAWS.count, BLOCKS, BLOCKS))
    for i, track in enumerate(corpus.ids):
        example = tiny.row(corpus, i)
        weight = np.broadcast_to(example.mask[:, None, None], example.latent.shape)
        weight = weight / weight.sum(dtype=np.float64)
        for d in range(DRAWS.count):
            t, noise = tiny.draw(SEED, keys.Domain.SWEEP, track, d, DRAWS.strata)

            def predict(moved, example=example, t=t, noise=noise):
                params = tiny.params(0)
                params["attention"] = {p.split("/")[1]: x for p, x in moved.items()}
                return tiny.terms(params, example, t, noise).prediction

            along = []
            for k in range(BLOCKS):
                prediction, tangent = jax.jvp(
                    predict, (moved,), (jax.tree.map(lambda x, k=k: x[k], u),)
                )
                along.append(np.asarray(tangent))
                firsts[i, d, k] = np.sum(2 * weight * (np.asarray(prediction) - noise) * along[k])
            for j in range(BLOCKS):
                for k in range(BLOCKS):
                    gram[i, d, j, k] = np.sum(weight * along[j] * along[k])
    return firsts, gram


def u_statistic(gram, blocks):
    return np.mean([gram[..., j, k] for j in blocks for k in blocks if j != k], axis=0)


def test_expansion(dtype):
    u = loop_direction()
    got = engine_expansion(dtype, {p: x.astype(dtype) for p, x in u.items()})
    with jax.enable_x64(True):
        firsts, gram = loop_expansion(u)
    shape = (4, DRAWS.replicates, DRAWS.strata)
    close(got.loss, loop_losses(tiny.params(0)), dtype)
    close(got.a[:, 0], firsts.mean(-1).reshape(shape), dtype)
    close(got.b_step[:, 0], gram.mean((-1, -2)).reshape(shape), dtype)
    close(got.b[:, 0], u_statistic(gram, range(BLOCKS)).reshape(shape), dtype)
    for k in range(BLOCKS):
        others = [j for j in range(BLOCKS) if j != k]
        a_without = firsts[..., others].mean(-1).reshape(shape).mean(1)
        b_without = u_statistic(gram, others).reshape(shape).mean(1)
        close(got.a_without[:, 0, k], a_without, dtype)
        close(got.b_without[:, 0, k], b_without, dtype)
    # The second query's directions are the first's, three times as long and in reverse order.
    close(got.a[:, 1], 3 * got.a[:, 0], dtype)
    close(got.b[:, 1], 9 * got.b[:, 0], dtype)
    close(got.a_without[:, 1], 3 * got.a_without[:, 0, ::-1], dtype)


def test_several_steps_follow_the_formula():
    """Two steps by the engine against the formula written out, float64."""
    moved, _ = flat64()
    rate = 0.5
    with jax.enable_x64(True):
        model, corpus, moved, rest = parts(np.float64)
        made = unlearn.make_gradient(model, QUERY_DRAWS, BLOCKS, SEED, 4, USED)
        placed = unlearn.place(made, moved, rest)
        information, step = engine_fisher(np.float64), zeros(moved)
        for _ in range(2):
            query = tiny.row(corpus, 2)
            gradient = unlearn.query_gradient(made, placed, step, query, corpus.ids[2])
            u = unlearn.preconditioned(
                unlearn.mean_of_blocks(gradient.blocks), information, DAMPING, TRAINING_SET
            )
            step = unlearn.next_step(step, u, rate)
    squares = loop_fisher()
    damping = DAMPING * np.concatenate([x.ravel() for x in squares.values()]).mean()
    wanted = {p: np.zeros_like(x) for p, x in squares.items()}
    for _ in range(2):
        at = {p: np.asarray(moved[p]) + wanted[p] for p in wanted}
        g = gradient_at(at)
        wanted = {
            p: wanted[p] + rate * (g[p] / (squares[p] + damping) / TRAINING_SET - wanted[p])
            for p in wanted
        }
    for path in wanted:
        close(step[path], wanted[path], np.float64)


def gradient_at(at):
    """The query's mean gradient at other parameters, one draw at a time."""
    corpus, per_block = tiny.corpus(4), QUERY_DRAWS // BLOCKS
    example, total = tiny.row(corpus, 2), None
    for d in range(QUERY_DRAWS):
        t, noise = tiny.draw(SEED, keys.Domain.QUERY, corpus.ids[2], d, per_block)

        def loss(moved, t=t, noise=noise):
            params = tiny.params(0)
            params["attention"] = {p.split("/")[1]: x for p, x in moved.items()}
            terms = tiny.terms(params, example, t, noise)
            weight = np.broadcast_to(example.mask[:, None, None], noise.shape).astype(np.float64)
            return jnp.sum(weight * (terms.prediction - noise) ** 2) / weight.sum()

        with jax.enable_x64(True):
            g = jax.tree.map(np.asarray, jax.grad(loss)(at))
        total = g if total is None else jax.tree.map(np.add, total, g)
    return jax.tree.map(lambda x: x / QUERY_DRAWS, total)
