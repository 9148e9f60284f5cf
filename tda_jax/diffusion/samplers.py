"""Deterministic sampling: DDIM and DPM-Solver++(2M), as a plan and a pure step.

A plan holds all that does not depend on the latent: the timesteps and, per step, the coefficients
of the update, computed in float64. A step is pure: it maps (rule, coefficients, state, prediction)
to the next state.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from tda_jax.diffusion.losses import Predict
from tda_jax.diffusion.scheduler_config import refuse_values
from tda_jax.diffusion.schedules import NoiseSchedule
from tda_jax.diffusion.targets import split_prediction
from tda_jax.diffusion.timesteps import ddim_timesteps, dpm_timesteps
from tda_jax.errors import InputError
from tda_jax.precision import working_dtype

Column = Float[np.ndarray, " S"] | Float[Array, ""]
"""One coefficient: for all steps in a plan, or for one step in a state update."""


class SamplerState(NamedTuple):
    """What a sampler carries from step to step.

    Attributes:
        x: the noisy latent, in float32 or float64.
        x0: the clean latent that the last prediction stood for; zeros before the first step.
    """

    x: Float[Array, "..."]
    x0: Float[Array, "..."]


class DdimCoefficients(NamedTuple):
    """Shares of signal and noise at this step's timestep and at the next."""

    alpha: Column
    sigma: Column
    alpha_next: Column
    sigma_next: Column


class DpmCoefficients(NamedTuple):
    """x_next = keep * x + data * x_0 + change * (x_0 - the previous x_0)."""

    alpha: Column
    sigma: Column
    keep: Column
    data: Column
    change: Column


class UpdateRule(NamedTuple):
    """The static part of a step, hashable by value, so that equal plans share one compilation.

    Attributes:
        step: `ddim_step` or `dpm_step`.
        prediction_type: "epsilon" or "v_prediction".
        clip: bound of |x_0| that DDIM clips to, or None. DPM-Solver++ ignores it.
    """

    step: Callable[..., SamplerState]
    prediction_type: str
    clip: float | None


class SamplingPlan(NamedTuple):
    """All of a sampler that does not depend on the latent. Made by `ddim_plan` or `dpm_plan`.

    Attributes:
        timesteps: (S,), from noisy to clean.
        coefficients: of the update, each (S,), float64; rounded to the latent's type when used.
        rule: how a step uses them.
    """

    timesteps: Int32[np.ndarray, " S"]
    coefficients: DdimCoefficients | DpmCoefficients
    rule: UpdateRule


def ddim_plan(schedule: NoiseSchedule, num_steps: int) -> SamplingPlan:
    """Plans deterministic DDIM sampling (Song et al. 2021, arXiv 2010.02502, eq. 12, eta = 0).

    As in diffusers, a step goes to t - T // num_steps whatever the spacing is. For "leading" that
    is the next timestep; for "linspace" and for an uneven "trailing" it is not quite.

    Args:
        schedule: the noise process. Of its config are read: timestep_spacing ("leading" if
            absent), steps_offset (0), set_alpha_to_one (true; if false the last step ends at the
            noise level of t = 0), clip_sample (true) and clip_sample_range (1.0).
        num_steps: S, 1 .. T.

    Returns:
        The plan.

    Raises:
        InputError: if num_steps is out of range, if the config asks for thresholding, or if it
            leaves clip_sample open and was written for a scheduler that has no such setting.
    """
    config, source = schedule.config, schedule.source
    refuse_values(config, source, {"thresholding": (False,)}, "The sampler")
    timesteps = ddim_timesteps(schedule, num_steps)
    after = timesteps - schedule.alpha.shape[0] // num_steps
    final = (1.0, 0.0)
    if not config.get("set_alpha_to_one", True):
        final = (schedule.alpha[0], schedule.sigma[0])
    landing = np.maximum(after, 0)
    coefficients = DdimCoefficients(
        alpha=schedule.alpha[timesteps],
        sigma=schedule.sigma[timesteps],
        alpha_next=np.where(after >= 0, schedule.alpha[landing], final[0]),
        sigma_next=np.where(after >= 0, schedule.sigma[landing], final[1]),
    )
    return SamplingPlan(
        timesteps, coefficients, UpdateRule(ddim_step, schedule.prediction_type, _clip(schedule))
    )


def dpm_plan(schedule: NoiseSchedule, num_steps: int) -> SamplingPlan:
    """Plans DPM-Solver++(2M), midpoint form, ending at zero noise.

    Lu et al. 2022, "DPM-Solver++", arXiv 2211.01095, algorithm 2: with lambda = log(alpha / sigma),
    h = lambda_next - lambda and r = (lambda - lambda_before) / h, a step takes
    D = x_0 + (x_0 - x_0 before) / (2r) and x_next = (sigma_next / sigma) x - alpha_next
    (e^-h - 1) D. The first and the last step are of first order (D = x_0): before the first there
    is no x_0, and the last, to zero noise, has an infinite h.

    Args:
        schedule: the noise process. Of its config are read: timestep_spacing ("linspace" if
            absent) and steps_offset (0). clip_sample plays no part, as in diffusers.
        num_steps: S, from 1 to T (to T-1 for "leading" and "linspace").

    Returns:
        The plan.

    Raises:
        InputError: if num_steps is out of range or the config asks for another solver.
    """
    refuse_values(schedule.config, schedule.source, _DPM_SUPPORTED, "The sampler")
    timesteps = dpm_timesteps(schedule, num_steps)
    alpha, sigma = schedule.alpha[timesteps], schedule.sigma[timesteps]
    alpha_next, sigma_next = np.append(alpha[1:], 1.0), np.append(sigma[1:], 0.0)
    keep = sigma_next / sigma
    data = alpha_next - alpha * keep  # -alpha_next (e^-h - 1), without the logarithm of 0
    change = np.zeros_like(data)
    jump = np.diff(np.log(alpha) - np.log(sigma))  # h of every step but the last
    change[1:-1] = 0.5 * data[1:-1] * jump[1:] / jump[:-1]
    return SamplingPlan(
        timesteps,
        DpmCoefficients(alpha, sigma, keep, data, change),
        UpdateRule(dpm_step, schedule.prediction_type, None),
    )


# lower_order_final and euler_at_final are free: with order 2 and a final sigma of zero the last
# step is of first order either way. "deis", "bh1", "bh2" and "logrho" are other classes' names,
# which diffusers maps to these when it loads their configs.
_DPM_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "thresholding": (False,),
    "solver_order": (2,),
    "algorithm_type": ("dpmsolver++", "deis"),
    "solver_type": ("midpoint", "bh1", "bh2", "logrho"),
    "final_sigmas_type": ("zero",),
    "lambda_min_clipped": (-np.inf,),
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
}


def ddim_step(
    rule: UpdateRule,
    now: DdimCoefficients,
    state: SamplerState,
    prediction: Float[Array, "..."],
) -> SamplerState:
    """One DDIM step: x_next = alpha_next * x_0 + sigma_next * noise.

    Args:
        rule: of the plan.
        now: the coefficients of this step, scalars of the state's type.
        state: its x is the latent at this step's timestep.
        prediction: the network's output there, of the state's shape and type.

    Returns:
        The state at the next timestep. Where x_0 is clipped, the noise stays as predicted.
    """
    x0, eps = split_prediction(rule.prediction_type, now.alpha, now.sigma, state.x, prediction)
    if rule.clip is not None:
        x0 = jnp.clip(x0, -rule.clip, rule.clip)
    return SamplerState(now.alpha_next * x0 + now.sigma_next * eps, x0)


def dpm_step(
    rule: UpdateRule,
    now: DpmCoefficients,
    state: SamplerState,
    prediction: Float[Array, "..."],
) -> SamplerState:
    """One DPM-Solver++(2M) step; see `dpm_plan`.

    Args:
        rule: of the plan.
        now: the coefficients of this step, scalars of the state's type.
        state: the latent at this step's timestep, and the x_0 of the step before.
        prediction: the network's output there, of the state's shape and type.

    Returns:
        The state at the next timestep.
    """
    x0, _ = split_prediction(rule.prediction_type, now.alpha, now.sigma, state.x, prediction)
    x = now.keep * state.x + now.data * x0 + now.change * (x0 - state.x0)
    return SamplerState(x, x0)


def sample(
    predict: Predict, plan: SamplingPlan, params: Any, x_T: Float[Array, "*shape"], condition: Any
) -> Float[Array, "*shape"]:
    """Denoises x_T along a plan, in a Python loop over one compiled step.

    The loop is not a `lax.scan`, in which XLA's CPU backend runs convolutions many times slower.

    Args:
        predict: (params, x_t, t, condition) -> prediction, of the shape of x_t; t is a scalar
            int32. It is compiled once per function object, so make it once and reuse it.
        plan: made by `ddim_plan` or `dpm_plan`.
        params: given to predict.
        x_T: standard normal. Any shape that predict takes, with or without a batch axis.
        condition: given to predict.

    Returns:
        The sampled latent, in the model's scaling, of the shape and type of x_T. Between steps it
        is held in float32 at least; predict sees the type of x_T.
    """
    dtype = working_dtype(x_T.dtype)
    state = SamplerState(x_T.astype(dtype), jnp.zeros(x_T.shape, dtype))
    for i, t in enumerate(plan.timesteps):
        now = jax.tree.map(lambda column, i=i: jnp.asarray(column[i], dtype), plan.coefficients)
        state = _advance(
            predict, plan.rule, x_T.dtype, params, now, jnp.asarray(t), state, condition
        )
    return state.x.astype(x_T.dtype)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _advance(
    predict: Predict,
    rule: UpdateRule,
    input_dtype: Any,
    params: Any,
    now: DdimCoefficients | DpmCoefficients,
    t: Int32[Array, ""],
    state: SamplerState,
    condition: Any,
) -> SamplerState:
    """Asks the network for a prediction and takes one step."""
    prediction = predict(params, state.x.astype(input_dtype), t, condition)
    return rule.step(rule, now, state, prediction.astype(state.x.dtype))


def _clip(schedule: NoiseSchedule) -> float | None:
    """The bound that DDIM clips |x_0| to, or None."""
    config = schedule.config
    name = config.get("_class_name", "DDIMScheduler")
    if "clip_sample" not in config and name not in ("DDIMScheduler", "DDPMScheduler"):
        # diffusers would take DDIM's default, true, which cuts latents off at 1 in silence.
        raise InputError(
            f"{schedule.source}: clip_sample is not set, and {name} has no such setting. Add "
            '"clip_sample": false for a latent model, or true for one of samples in -1 .. 1.'
        )
    clips = config.get("clip_sample", True)
    return float(config.get("clip_sample_range", 1.0)) if clips else None
