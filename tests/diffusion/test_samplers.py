import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax.diffusion.guidance import guided
from tda_jax.diffusion.samplers import (
    SamplerState,
    ddim_plan,
    dpm_plan,
    sample,
)
from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.diffusion.targets import add_noise, target
from tda_jax.diffusion.timesteps import ddim_timesteps, dpm_timesteps
from tda_jax.errors import InputError

LATENT = {"clip_sample": False, "beta_schedule": "scaled_linear", "beta_end": 0.012}
PLANS = pytest.mark.parametrize("plan_of", [ddim_plan, dpm_plan], ids=["ddim", "dpm"])
PREDICTIONS = pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])


def schedule_of(**keys):
    return schedule_from_config({**LATENT, **keys}, "here")


def oracle(schedule, x0, noise):
    """A network that knows the one example there is, and the noise in it."""

    def predict(params, x_t, t, condition):
        return target(schedule, x0, noise, t)

    return predict


@PLANS
@PREDICTIONS
@pytest.mark.parametrize("num_steps", [1, 2, 7, 20])
def test_a_perfect_network_gives_back_the_example(plan_of, prediction_type, num_steps):
    with jax.enable_x64(True):
        schedule = schedule_of(prediction_type=prediction_type)
        x0, noise = jax.random.normal(jax.random.key(0), (2, 4, 3), jnp.float64)
        plan = plan_of(schedule, num_steps)
        x_T = add_noise(schedule, x0, noise, int(plan.timesteps[0]))
        out = sample(oracle(schedule, x0, noise), plan, None, x_T, None)
        assert out.dtype == jnp.float64
        np.testing.assert_allclose(out, x0, atol=1e-11)


@PLANS
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_types_are_kept_and_the_network_sees_them(plan_of, dtype):
    seen = set()

    def predict(params, x_t, t, condition):
        seen.add((x_t.dtype, t.dtype, t.shape))
        return params * x_t

    x_T = jnp.ones((4, 3), dtype)
    out = sample(predict, plan_of(schedule_of(), 3), jnp.asarray(0.5, dtype), x_T, None)
    assert out.dtype == dtype
    assert seen == {(jnp.dtype(dtype), jnp.dtype(jnp.int32), ())}


def plain_ddim(schedule, num_steps, predict, x, clip):
    """DDIM in float64, one line per symbol of its equation 12."""
    stride = 1000 // num_steps
    for i in reversed(range(num_steps)):
        t, after = i * stride, (i - 1) * stride
        a, s = schedule.alpha[t], schedule.sigma[t]
        a_next, s_next = (schedule.alpha[after], schedule.sigma[after]) if i else (1.0, 0.0)
        eps = predict(x, t)
        x0 = np.clip((x - s * eps) / a, -clip, clip)
        x = a_next * x0 + s_next * eps
    return x


def plain_dpm(schedule, timesteps, predict, x):
    """DPM-Solver++(2M) in float64, from algorithm 2 of its paper with logarithms."""
    lam = np.log(schedule.alpha / schedule.sigma)
    x0_before = None
    for i, t in enumerate(timesteps):
        a, s = schedule.alpha[t], schedule.sigma[t]
        x0 = (x - s * predict(x, t)) / a
        if i == len(timesteps) - 1:
            return x0
        after = timesteps[i + 1]
        h = lam[after] - lam[t]
        d = x0
        if i:
            r = (lam[t] - lam[timesteps[i - 1]]) / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_before
        x = schedule.sigma[after] / s * x - schedule.alpha[after] * np.expm1(-h) * d
        x0_before = x0
    return x


def curved(params, x_t, t, condition):
    share = t.astype(x_t.dtype) / 1000
    return share * x_t + (1 - share) * jnp.sin(3 * x_t)


def curved_numpy(x, t):
    return t / 1000 * x + (1 - t / 1000) * np.sin(3 * x)


@pytest.mark.parametrize("clip", [None, 0.7])
def test_ddim_is_a_plain_float64_loop(clip):
    keys = {} if clip is None else {"clip_sample": True, "clip_sample_range": clip}
    schedule, x_T = schedule_of(**keys), np.linspace(-2, 2, 12)
    expected = plain_ddim(schedule, 9, curved_numpy, x_T, clip or np.inf)
    with jax.enable_x64(True):
        out = sample(curved, ddim_plan(schedule, 9), None, jnp.asarray(x_T), None)
    np.testing.assert_allclose(out, expected, atol=1e-12)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 16])
@pytest.mark.parametrize("betas", ["scaled_linear", "squaredcos_cap_v2"])
def test_dpm_is_a_plain_float64_loop(num_steps, betas):
    schedule, x_T = schedule_of(beta_schedule=betas), np.linspace(-2, 2, 12)
    plan = dpm_plan(schedule, num_steps)
    expected = plain_dpm(schedule, plan.timesteps, curved_numpy, x_T)
    with jax.enable_x64(True):
        out = sample(curved, plan, None, jnp.asarray(x_T), None)
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-10)


@PREDICTIONS
def test_the_first_step_of_dpm_is_a_ddim_step_between_the_same_times(prediction_type):
    # Leading DDIM in 10 steps and leading DPM in 9 share their grid: 900, 800, ...
    schedule = schedule_of(prediction_type=prediction_type, timestep_spacing="leading")
    ddim, dpm = ddim_plan(schedule, 10), dpm_plan(schedule, 9)
    np.testing.assert_array_equal(ddim.timesteps[:9], dpm.timesteps)
    x, output = jax.random.normal(jax.random.key(0), (2, 5))
    states = []
    for plan in (ddim, dpm):
        now = type(plan.coefficients)(*(jnp.float32(c[0]) for c in plan.coefficients))
        # A 2M step would use what stands in x0; the first must not.
        states.append(plan.rule.step(plan.rule, now, SamplerState(x, 100 * x), output))
    np.testing.assert_allclose(states[0].x, states[1].x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(states[0].x0, states[1].x0)


def test_the_last_ddim_step_ends_at_zero_noise_or_at_the_first_timestep():
    one = ddim_plan(schedule_of(set_alpha_to_one=True), 10).coefficients
    first = ddim_plan(schedule_of(set_alpha_to_one=False, steps_offset=1), 10).coefficients
    assert (one.alpha_next[-1], one.sigma_next[-1]) == (1.0, 0.0)
    schedule = schedule_of()
    assert (first.alpha_next[-1], first.sigma_next[-1]) == (schedule.alpha[0], schedule.sigma[0])


@pytest.mark.parametrize(
    ("spacing", "offset", "ddim", "dpm"),
    [
        ("leading", 0, [750, 500, 250, 0], [800, 600, 400, 200]),
        ("leading", 1, [751, 501, 251, 1], [801, 601, 401, 201]),
        ("linspace", 1, [999, 666, 333, 0], [999, 749, 500, 250]),
        ("trailing", 1, [999, 749, 499, 249], [999, 749, 499, 249]),
    ],
)
def test_timesteps_by_hand(spacing, offset, ddim, dpm):
    schedule = schedule_of(timestep_spacing=spacing, steps_offset=offset)
    assert ddim_timesteps(schedule, 4).tolist() == ddim
    assert dpm_timesteps(schedule, 4).tolist() == dpm


def test_halves_are_rounded_to_even_before_the_shift():
    schedule = schedule_of(timestep_spacing="trailing")  # 1000, 937.5, 875, 812.5, ...
    assert ddim_timesteps(schedule, 16)[:6].tolist() == [999, 937, 874, 811, 749, 687]


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("timesteps_of", [ddim_timesteps, dpm_timesteps])
def test_timesteps_fall_and_stay_in_range_for_every_count(spacing, timesteps_of):
    schedule = schedule_of(timestep_spacing=spacing)
    for num_steps in range(1, 1000):
        times = timesteps_of(schedule, num_steps)
        assert times.shape == (num_steps,)
        assert times[0] <= 999
        assert times[-1] >= 0
        assert np.all(np.diff(times) < 0)


def test_step_counts_out_of_range_are_refused():
    for num_steps in (0, -1, 1001):
        for timesteps_of in (ddim_timesteps, dpm_timesteps):
            with pytest.raises(InputError, match=f"num_steps = {num_steps} .* here"):
                timesteps_of(schedule_of(), num_steps)
    with pytest.raises(InputError, match=r"num_steps = 1000 .* 1 to 999 steps"):
        dpm_timesteps(schedule_of(), 1000)
    with pytest.raises(InputError, match="steps_offset = 1 of here starts at t = 1000"):
        ddim_timesteps(schedule_of(steps_offset=1), 1000)


OTHER_SOLVERS = {
    "solver_order": 3,
    "algorithm_type": "sde-dpmsolver++",
    "solver_type": "heun",
    "final_sigmas_type": "sigma_min",
    "lambda_min_clipped": -5.1,
    "use_karras_sigmas": True,
    "use_exponential_sigmas": True,
    "use_beta_sigmas": True,
    "use_lu_lambdas": True,
    "thresholding": True,
}


@pytest.mark.parametrize(("key", "value"), OTHER_SOLVERS.items())
def test_another_solver_is_refused_by_name(key, value):
    message = re.escape(f"here: {key} = {value!r} is not supported")
    with pytest.raises(InputError, match=message):
        dpm_plan(schedule_of(**{key: value}), 5)


def test_ddim_refuses_thresholding_and_an_open_question_of_clipping():
    with pytest.raises(InputError, match="here: thresholding = True"):
        ddim_plan(schedule_of(thresholding=True), 5)
    euler = schedule_from_config({"_class_name": "EulerDiscreteScheduler"}, "here")
    with pytest.raises(InputError, match="here: clip_sample is not set, and Euler"):
        ddim_plan(euler, 5)
    assert ddim_plan(schedule_from_config({}, "here"), 5).rule.clip == 1.0


def test_equal_plans_share_one_compilation():
    traces = []

    def predict(params, x_t, t, condition):
        traces.append(1)
        return x_t

    for num_steps in (3, 5):
        plan = dpm_plan(schedule_of(), num_steps)
        sample(predict, plan, None, jnp.ones((2, 2)), None)
    assert len(traces) == 1


def test_guidance():
    calls = []

    def cond(params, x_t, t, condition):
        calls.append("cond")
        return x_t * condition[0]

    def uncond(params, x_t, t, condition):
        calls.append("uncond")
        return x_t * condition[1]

    pair = (jnp.float32(3.0), jnp.float32(1.0))
    x = jnp.array([1.0, -2.0])
    out = guided(cond, uncond, 2.5)(None, x, 0, pair)
    np.testing.assert_allclose(out, x * (1 + 2.5 * (3 - 1)))
    assert sorted(calls) == ["cond", "uncond"]
    calls.clear()
    np.testing.assert_array_equal(guided(cond, uncond, 1.0)(None, x, 0, pair), 3 * x)
    assert calls == ["cond"]


@PLANS
def test_same_samples_as_diffusers(plan_of, recipe, golden, assert_close):
    _, x_T, weight = recipe.arrays()

    def predict(params, x_t, t, condition):
        share = t.astype(jnp.float32) / jnp.float32(1000)
        return recipe.network(jnp.tanh, x_t, share, params)

    for name, config in recipe.CASES.items():
        theirs = golden[name]["ddim" if plan_of is ddim_plan else "dpm"]
        plan = plan_of(schedule_from_config(config, name), 10)
        assert plan.timesteps.tolist() == theirs["timesteps"]
        out = sample(predict, plan, jnp.asarray(weight), jnp.asarray(x_T), None)
        assert_close(out, theirs["sample"])
