"""The check accepts a model that keeps the contract and names the promise that another breaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax.attribution import conformance
from tda_jax.errors import InputError
from tests.attribution import tiny

DATA = tiny.corpus(2, dtype=np.float32).examples
COUNTER = []


def broken(change):
    def terms(params, example, t, noise):
        return change(params, example, t, noise, tiny.terms(params, example, t, noise))

    return tiny.model(dtype=np.float32)._replace(terms=terms)


def test_a_good_model_passes():
    report = conformance.check(tiny.model(dtype=np.float32), DATA)
    assert [line.split(":")[0] for line in report.splitlines()] == list(conformance._CHECKS)


def impure(params, example, t, noise, good):
    COUNTER.append(0)
    return good._replace(
        prediction=good.prediction + jax.pure_callback(_noise, jax.ShapeDtypeStruct((), "float32"))
    )


def _noise():
    COUNTER.append(0)
    return np.float32(len(COUNTER) * 1e-3)


def same(example):
    first = jax.tree.map(lambda x: jnp.asarray(x[0]), DATA)
    return first._replace(mask=example.mask)


BREAKS = {
    "differ from the latent": lambda p, e, t, n, good: good._replace(
        prediction=good.prediction[None]
    ),
    "the loss of a draw is nan": lambda p, e, t, n, good: good._replace(mask=0 * e.mask),
    "terms must be pure": impure,
    "must use t and the noise": lambda p, e, t, n, good: tiny.terms(p, e, 3, jnp.ones_like(n)),
    "the target changes": lambda p, e, t, n, good: good._replace(target=good.prediction * 0.5),
    "changes nothing": lambda p, e, t, n, good: good._replace(mask=jnp.ones_like(e.mask)),
    "must use the example": lambda p, e, t, n, good: tiny.terms(p, same(e), t, n),
}


@pytest.mark.parametrize("message", BREAKS)
def test_a_broken_promise_is_named(message):
    with pytest.raises(InputError, match=message):
        conformance.check(broken(BREAKS[message]), DATA)


def test_a_group_without_gradient_is_named():
    model = tiny.model(dtype=np.float32)
    params = model.params | {"unused": {"kernel": np.ones(3, np.float32)}}
    model = model._replace(params=params, groups={"unused": "unused/.*"})
    with pytest.raises(InputError, match="'unused': the gradient's squared length is 0"):
        conformance.check(model, DATA)


def test_one_example_is_too_few():
    one = jax.tree.map(lambda x: x[:1], DATA)
    with pytest.raises(InputError, match="two at least"):
        conformance.check(tiny.model(dtype=np.float32), one)
