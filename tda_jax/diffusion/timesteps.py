"""Which timesteps a sampler visits (Lin et al. 2024, arXiv 2305.08891, table 2)."""

import numpy as np
from jaxtyping import Int32

from tda_jax.diffusion.schedules import NoiseSchedule
from tda_jax.errors import InputError


def ddim_timesteps(schedule: NoiseSchedule, num_steps: int) -> Int32[np.ndarray, " S"]:
    """The timesteps of DDIM, as in diffusers; the spacing defaults to "leading".

    Args:
        schedule: read for `timestep_spacing` and `steps_offset` of its config.
        num_steps: S, 1 .. T.

    Returns:
        Timesteps from noisy to clean, strictly falling.

    Raises:
        InputError: if num_steps is outside 1 .. T, or a timestep would fall outside 0 .. T-1.
    """
    return _timesteps(schedule, num_steps, num_steps, "leading")


def dpm_timesteps(schedule: NoiseSchedule, num_steps: int) -> Int32[np.ndarray, " S"]:
    """The timesteps of DPM-Solver++, as in diffusers; the spacing defaults to "linspace".

    For "leading" and "linspace" the grid has S+1 points, and the last one is the clean end.

    Args:
        schedule: read for `timestep_spacing` and `steps_offset` of its config.
        num_steps: S, from 1 to T (to T-1 for "leading" and "linspace").

    Returns:
        Timesteps from noisy to clean, strictly falling.

    Raises:
        InputError: if num_steps is out of range, or a timestep would fall outside 0 .. T-1.
    """
    trailing = schedule.config.get("timestep_spacing") == "trailing"
    return _timesteps(schedule, num_steps, num_steps + (not trailing), "linspace")


def _timesteps(
    schedule: NoiseSchedule, num_steps: int, points: int, default_spacing: str
) -> Int32[np.ndarray, " S"]:
    """The first `num_steps` of a falling grid with `points` points."""
    steps = schedule.alpha.shape[0]
    if num_steps < 1 or points > steps:
        raise InputError(
            f"num_steps = {num_steps} is out of range for {schedule.source}. Ask for 1 to "
            f"{steps - (points - num_steps)} steps."
        )
    spacing = schedule.config.get("timestep_spacing", default_spacing)
    if spacing == "linspace":
        grid = np.linspace(0, steps - 1, points)[::-1]
    elif spacing == "leading":
        grid = np.arange(points)[::-1] * (steps // points)
        grid = grid + schedule.config.get("steps_offset", 0)  # the other spacings ignore it
    else:
        grid = np.arange(steps, 0, -steps / points).round() - 1  # a half rounds before the shift
    # The slice drops the clean end, and a point below 0 that "trailing" gets by rounding for some
    # counts: 61 steps of 1000, say. There diffusers takes 62 steps, the last at t = -1.
    chosen = grid[:num_steps].round().astype(np.int32)
    if chosen[0] >= steps:
        raise InputError(
            f"num_steps = {num_steps} with steps_offset = {schedule.config['steps_offset']} of "
            f"{schedule.source} starts at t = {chosen[0]}, above the last timestep {steps - 1}. "
            "Ask for fewer steps."
        )
    return chosen
