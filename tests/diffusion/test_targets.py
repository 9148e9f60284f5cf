import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.diffusion.targets import (
    add_noise,
    eps_from_prediction,
    target,
    x0_from_prediction,
)

# alpha^2 = 0.64 and 0.36, so that alpha and sigma are 0.8, 0.6 and 0.6, 0.8.
BETAS = {"trained_betas": [0.36, 0.4375], "num_train_timesteps": 2}
EPS = schedule_from_config({**BETAS, "prediction_type": "epsilon"}, "here")
V = schedule_from_config({**BETAS, "prediction_type": "v_prediction"}, "here")
AUDIOLDM_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195}

X0 = jnp.array([1.0, 2.0, -3.0])
NOISE = jnp.array([0.5, -1.0, 4.0])


def test_small_case_by_hand():
    np.testing.assert_allclose(add_noise(EPS, X0, NOISE, 0), [1.1, 1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(add_noise(EPS, X0, NOISE, 1), [1.0, 0.4, 1.4], atol=1e-6)
    np.testing.assert_array_equal(target(EPS, X0, NOISE, 1), NOISE)
    np.testing.assert_allclose(target(V, X0, NOISE, 0), [-0.2, -2.0, 5.0], atol=1e-6)
    np.testing.assert_allclose(target(V, X0, NOISE, 1), [-0.5, -2.2, 4.8], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    t=st.integers(0, 999),
    seed=st.integers(0, 2**31),
    prediction_type=st.sampled_from(["epsilon", "v_prediction"]),
)
def test_a_perfect_prediction_gives_back_clean_and_noise(t, seed, prediction_type):
    schedule = schedule_from_config({**AUDIOLDM_BETAS, "prediction_type": prediction_type}, "here")
    x0, noise = np.random.default_rng(seed).normal(size=(2, 5, 3))
    with jax.enable_x64(True):
        x0, noise = jnp.asarray(x0), jnp.asarray(noise)
        x_t = add_noise(schedule, x0, noise, t)
        out = target(schedule, x0, noise, t)
        assert x_t.dtype == out.dtype == jnp.float64
        back = x0_from_prediction(schedule, x_t, out, t)
        np.testing.assert_allclose(back, x0, atol=1e-12)
        np.testing.assert_allclose(eps_from_prediction(schedule, x_t, out, t), noise, atol=1e-12)


@pytest.mark.parametrize("function", [add_noise, target, x0_from_prediction, eps_from_prediction])
@pytest.mark.parametrize("schedule", [EPS, V], ids=["epsilon", "v"])
def test_vmap_is_a_loop_and_types_are_kept(function, schedule):
    first = jax.random.normal(jax.random.key(0), (4, 3, 2))
    second = jax.random.normal(jax.random.key(1), (4, 3, 2))
    times = jnp.array([0, 1, 1, 0])
    batch = jax.vmap(lambda a, b, t: function(schedule, a, b, t))(first, second, times)
    assert batch.dtype == jnp.float32
    for i in range(4):
        alone = function(schedule, first[i], second[i], times[i])
        np.testing.assert_allclose(batch[i], alone, rtol=1e-6, atol=1e-6)
    half = function(schedule, first.astype(jnp.bfloat16), second.astype(jnp.bfloat16), times[0])
    assert half.dtype == jnp.bfloat16


def test_half_precision_is_rounded_once():
    x0, noise = X0.astype(jnp.bfloat16) / 3, NOISE.astype(jnp.bfloat16) / 7
    exact = add_noise(EPS, x0.astype(jnp.float32), noise.astype(jnp.float32), 1)
    np.testing.assert_array_equal(
        add_noise(EPS, x0, noise, 1).astype(jnp.float32),
        exact.astype(jnp.bfloat16).astype(jnp.float32),
    )


def test_a_timestep_outside_the_schedule_is_nan():
    for t in (-1, 2):
        assert np.all(np.isnan(add_noise(EPS, X0, NOISE, t)))
        assert np.all(np.isnan(target(V, X0, NOISE, t)))


def test_same_numbers_as_diffusers(recipe, golden, assert_close):
    x0, noise, _ = map(jnp.asarray, recipe.arrays())
    times = jnp.array(recipe.TIMES)
    for name, config in recipe.CASES.items():
        schedule = schedule_from_config({**config, "prediction_type": "v_prediction"}, name)
        noisy, velocity = (
            jax.vmap(lambda t, f=f, s=schedule: f(s, x0, noise, t))(times)
            for f in (add_noise, target)
        )
        assert_close(noisy[:, 0], golden[name]["noisy"])
        assert_close(velocity[:, 0], golden[name]["velocity"])
