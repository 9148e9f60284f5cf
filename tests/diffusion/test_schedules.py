import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax.diffusion.schedules import alpha_sigma, schedule_from_config, schedule_to_config
from tda_jax.errors import InputError


def plain_betas(name, start, end, steps):
    if name == "linear":
        return [start + (end - start) * i / (steps - 1) for i in range(steps)]
    if name == "scaled_linear":
        low, high = math.sqrt(start), math.sqrt(end)
        return [(low + (high - low) * i / (steps - 1)) ** 2 for i in range(steps)]

    def bar(i):
        return math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - bar(i + 1) / bar(i), 0.999) for i in range(steps)]


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_alpha_and_sigma_are_those_of_a_plain_loop(name):
    config = {"beta_schedule": name, "beta_start": 0.002, "beta_end": 0.03}
    schedule = schedule_from_config({**config, "num_train_timesteps": 50}, "here")
    signal = 1.0
    for t, beta in enumerate(plain_betas(name, 0.002, 0.03, 50)):
        signal *= 1 - beta
        assert schedule.alpha[t] == pytest.approx(math.sqrt(signal), rel=1e-12)
        assert schedule.sigma[t] == pytest.approx(math.sqrt(1 - signal), rel=1e-12)
    assert schedule.alpha.shape == schedule.sigma.shape == (50,)


def test_trained_betas_replace_the_formula():
    config = {"trained_betas": [0.5, 0.36], "num_train_timesteps": 2, "beta_schedule": "linear"}
    schedule = schedule_from_config(config, "here")
    np.testing.assert_allclose(schedule.alpha**2, [0.5, 0.32], rtol=1e-15)


def test_defaults_are_those_of_diffusers():
    schedule = schedule_from_config({}, "here")
    betas = plain_betas("linear", 1e-4, 0.02, 1000)
    assert schedule.alpha[999] ** 2 == pytest.approx(math.prod(1 - b for b in betas), rel=1e-10)
    assert schedule.prediction_type == "epsilon"


def test_same_numbers_as_diffusers(recipe, golden, assert_close):
    for name, config in recipe.CASES.items():
        schedule = schedule_from_config(config, name)
        assert_close(schedule.alpha[recipe.TIMES] ** 2, golden[name]["alphas_cumprod"])


def test_the_config_comes_back_whole_and_apart(recipe):
    config = {**recipe.AUDIOLDM, "key_of_tomorrow": [1, 2], "trained_betas": None}
    schedule = schedule_from_config(config, "here")
    back = schedule_to_config(schedule)
    assert json.loads(json.dumps(back)) == config
    back["key_of_tomorrow"].append(3)
    assert schedule_to_config(schedule) == config


def test_betas_in_an_array_come_back_as_json():
    config = {"trained_betas": np.array([0.1, 0.2]), "num_train_timesteps": 2}
    back = schedule_to_config(schedule_from_config(config, "here"))
    assert json.loads(json.dumps(back))["trained_betas"] == [0.1, 0.2]


def test_the_tables_cannot_be_changed():
    schedule = schedule_from_config({}, "here")
    with pytest.raises(ValueError, match="read-only"):
        schedule.alpha[0] = 0.0


def test_looking_up_a_timestep_keeps_the_type_and_is_nan_outside():
    schedule = schedule_from_config({}, "here")
    look_up = jax.jit(lambda t: alpha_sigma(schedule, t, jnp.float32))
    alpha, sigma = look_up(999)
    assert alpha.dtype == sigma.dtype == jnp.float32
    assert float(alpha) == np.float32(schedule.alpha[999])
    assert float(sigma) == np.float32(schedule.sigma[999])
    for t in (-1, 1000):
        assert all(np.isnan(value) for value in look_up(t))
    with jax.enable_x64(True):
        alpha, _ = alpha_sigma(schedule, 3, jnp.float64)
        assert alpha.dtype == jnp.float64
        assert float(alpha) == schedule.alpha[3]


WRONG = {
    "_class_name": ["LCMScheduler", 3],
    "num_train_timesteps": [0, 1000.0, True, "1000", None],
    "beta_start": [0, 1.0, "0.1", None, float("nan"), True],
    "beta_end": [-0.1, [0.1]],
    "beta_schedule": ["sigmoid", 4, None],
    "trained_betas": ["0.1", [0.1, "a"], 0.1, [True]],
    "prediction_type": ["sample", "flow_prediction", None],
    "rescale_betas_zero_snr": [True, 0, None],
    "use_flow_sigmas": [True, 1],
    "variance_type": ["learned", "learned_range", 2],
    "interpolation_type": ["log_linear", 1],
    "timestep_type": ["continuous", 1],
    "clip_sample": ["false", 0, None],
    "clip_sample_range": [0, float("inf"), None, True],
    "set_alpha_to_one": ["no", None],
    "steps_offset": [-1, 1.0, True],
    "timestep_spacing": ["log", 3, None],
    "thresholding": [1, None],
    "solver_order": ["2", 0],
    "algorithm_type": [2],
    "solver_type": [2],
    "final_sigmas_type": [None],
    "lambda_min_clipped": ["-inf", None],
    "use_karras_sigmas": ["yes"],
    "use_exponential_sigmas": [0],
    "use_beta_sigmas": [0],
    "use_lu_lambdas": [0],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in WRONG.items() for v in vs])
def test_a_wrong_value_is_refused_by_name(key, value):
    with pytest.raises(InputError) as caught:
        schedule_from_config({key: value}, "model/scheduler_config.json")
    message = str(caught.value)
    assert message.startswith(f"model/scheduler_config.json: {key} = {value!r} ")
    assert "Set it to" in message or "Use a checkpoint with" in message


@pytest.mark.parametrize("betas", [[0.1], [0.1, 0.0], [0.1, 1.0], [[0.1, 0.2]]])
def test_unusable_trained_betas_are_refused(betas):
    with pytest.raises(InputError, match="trained_betas"):
        schedule_from_config({"trained_betas": betas, "num_train_timesteps": 2}, "here")
