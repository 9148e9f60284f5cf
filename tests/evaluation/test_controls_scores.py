"""The methods of the controls, from arrays whose scores are known."""

import numpy as np
import pytest

from tda_jax.evaluation import controls_noise
from tda_jax.evaluation import controls_scores as methods
from tests.evaluation import few_parameters

PLAN = few_parameters.plan(rise=0.1, rises=(0.1,), rates=(0.5, 2.0))
N, R, S = 3, 4, 10
RNG = np.random.default_rng(0)
ARRAYS = {
    "a": RNG.standard_normal((N, 4, R, S)),  # two groups: each true, then scrambled
    "b": RNG.random((N, 4, R, S)),
    "rate": np.array([0.1, 0.2, 0.3, 0.4]),
    "after": RNG.random((2, 3, N, R, S)),
}
BEFORE = RNG.random((N, R, S))


@pytest.mark.parametrize("group", [0, 1])
@pytest.mark.parametrize(("step", "rates"), [(0, None), (1, 0.5), (2, 2.0)])
def test_each_method_is_what_its_name_says(group, step, rates):
    got = methods.rises(ARRAYS, BEFORE, PLAN, group, step)
    true, other = 2 * group, 2 * group + 1
    lr, lr_other = (ARRAYS["rate"][[true, other]]) if rates is None else (rates, rates)
    a, b = ARRAYS["a"][:, true], ARRAYS["b"][:, true]
    wanted = {
        "exact": ARRAYS["after"][group, step] - BEFORE,
        "linearised": lr * a + lr**2 * b,
        "odd": lr * a,
        "even": lr**2 * b,
        "reversed": -lr * a + lr**2 * b,
        "scrambled": lr_other * ARRAYS["a"][:, other] + lr_other**2 * ARRAYS["b"][:, other],
    }
    assert tuple(got) == tuple(wanted) == methods.METHODS
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-12, err_msg=name)


def test_two_sets_of_draws_share_none():
    """Of noise alone no score repeats; one draw in common would make it."""
    noise = np.random.default_rng(1).standard_normal((4000, 8, 10))
    for replicates in (1, 2, 4):
        assert abs(controls_noise._repeated(noise, replicates)) < 0.06
    track = np.random.default_rng(2).standard_normal((4000, 1, 1))
    assert controls_noise._repeated(np.broadcast_to(track, noise.shape), 4) == 1.0
