"""The noise process of a discrete-time diffusion model: how much signal and noise is in x_t.

x_t = alpha(t) * x_0 + sigma(t) * noise, with alpha(t)^2 + sigma(t)^2 = 1 and t = 0 .. T-1
(Ho et al. 2020, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, eq. 4).
"""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from tda_jax.diffusion.scheduler_config import refuse_kinds, refuse_values
from tda_jax.errors import InputError

Time = int | np.integer | Int[Array, ""]
"""A timestep: a whole number in 0 .. T-1, concrete or traced."""


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise process that a model was trained with. Close over it: it is no pytree.

    Attributes:
        alpha: share of signal, sqrt of the cumulative product of (1 - beta), in (0, 1). Read-only.
        sigma: share of noise, sqrt(1 - alpha^2), in (0, 1). Read-only. Both are float64 and are
            rounded once, to the type they are used in: float32 inputs get correctly rounded values
            and float64 inputs lose nothing. diffusers 0.42.1 accumulates in float32. Over the betas
            of AudioLDM, Stable Diffusion, DDPM and the cosine its alpha differs from these by at
            most 2.6e-7 and its sigma by at most 2.4e-6. At t = 0, where its 1 - alpha^2 cancels,
            that sigma is off by a share of 3.5e-6, 1.3e-5, 8.3e-5 and 2.6e-4 in that order.
        prediction_type: what the network predicts: "epsilon", the noise, or "v_prediction",
            v = alpha * noise - sigma * x_0.
        config: the diffusers config that the schedule was made from. The samplers read their own
            keys in it. Do not change it; `schedule_to_config` gives a copy.
        source: where the config came from, for error messages.
    """

    alpha: Float64[np.ndarray, " T"]
    sigma: Float64[np.ndarray, " T"]
    prediction_type: str
    config: Mapping[str, Any]
    source: str


def schedule_from_config(config: Mapping[str, Any], source: str) -> NoiseSchedule:
    """Builds the noise process that a diffusers `scheduler_config.json` describes.

    Absent keys have the defaults of diffusers: 1000 timesteps, linear betas from 1e-4 to 0.02,
    epsilon prediction. Which sampler the config names plays no part: the process is the same.

    Args:
        config: the parsed JSON, written for one of the scheduler classes that share these betas
            (DDIM, DDPM, PNDM, DPM-Solver, UniPC, DEIS, Euler, LMS). Keys that are not understood
            are kept and passed over.
        source: the path or URL of the config, for error messages.

    Returns:
        The schedule, with T = num_train_timesteps.

    Raises:
        InputError: if a key is of the wrong kind, if its value asks for another process
            (rescale_betas_zero_snr, use_flow_sigmas, a learned variance, a prediction of the
            sample), or if the betas are not all in (0, 1) or not T in number.
    """
    refuse_kinds(config, source)
    refuse_values(config, source)
    betas = _betas(config, source)
    signal = np.cumprod(1.0 - betas)
    alpha, sigma = np.sqrt(signal), np.sqrt(1.0 - signal)
    alpha.setflags(write=False)
    sigma.setflags(write=False)
    kept = copy.deepcopy(dict(config))
    if kept.get("trained_betas") is not None:
        kept["trained_betas"] = betas.tolist()  # JSON has no arrays
    prediction_type = config.get("prediction_type", "epsilon")
    return NoiseSchedule(alpha, sigma, prediction_type, kept, source)


def schedule_to_config(schedule: NoiseSchedule) -> dict[str, Any]:
    """Gives the config back: JSON-serialisable, and accepted by diffusers' `from_config`.

    Args:
        schedule: made by `schedule_from_config`.

    Returns:
        A copy of the original config, unknown keys included.
    """
    return copy.deepcopy(dict(schedule.config))


def alpha_sigma(
    schedule: NoiseSchedule, t: Time, dtype: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Looks up the shares of signal and noise at a timestep.

    Args:
        schedule: the noise process.
        t: the timestep, 0 .. T-1.
        dtype: the floating type of the result.

    Returns:
        alpha(t) and sigma(t). Both are nan if t is outside 0 .. T-1: a traced t cannot raise, and
        JAX would otherwise clamp it in silence.
    """
    t = jnp.asarray(t)
    inside = (t >= 0) & (t < schedule.alpha.shape[0])
    nan = jnp.asarray(jnp.nan, dtype)

    def look_up(table: Float64[np.ndarray, " T"]) -> Float[Array, ""]:
        return jnp.where(inside, jnp.asarray(table, dtype)[t], nan)

    return look_up(schedule.alpha), look_up(schedule.sigma)


def _betas(config: Mapping[str, Any], source: str) -> Float64[np.ndarray, " T"]:
    """The variance of the noise added at each step, (T,), each in (0, 1)."""
    steps = config.get("num_train_timesteps", 1000)
    start, end = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    name = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        name, betas = "trained_betas", np.asarray(config["trained_betas"], np.float64)
    elif name == "linear":  # Ho et al. 2020, section 4
        betas = np.linspace(start, end, steps)
    elif name == "scaled_linear":  # linear in the standard deviation: Rombach et al. 2022
        betas = np.linspace(start**0.5, end**0.5, steps) ** 2
    else:
        betas = _cosine_betas(steps)
    if betas.shape != (steps,) or not np.all((betas > 0) & (betas < 1)):
        raise InputError(
            f"{source}: {name} gives betas of shape {betas.shape}, not all of them usable. Give "
            f"num_train_timesteps = {steps} betas, each above 0 and below 1."
        )
    return betas


def _cosine_betas(steps: int) -> Float64[np.ndarray, " T"]:
    """Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17: f(t) = cos^2((t/T + s)/(1 + s) * pi/2)."""
    s = 0.008
    f = np.cos((np.arange(steps + 1) / steps + s) / (1 + s) * np.pi / 2) ** 2
    return np.minimum(1.0 - f[1:] / f[:-1], 0.999)  # their cap: f(T) is 0
