"""The keys of a diffusers `scheduler_config.json`: their kinds, and the values that are refused."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tda_jax.errors import InputError
from tda_jax.kinds import BOOL, COUNT, POSITIVE, STR, Kind, is_number, is_whole, optional


def _is_betas(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return value is None or (isinstance(value, list | tuple) and all(map(is_number, value)))


def _one_of(*values: str) -> Kind:
    words = "one of " + ", ".join(f'"{v}"' for v in values)
    return Kind(words, lambda value: isinstance(value, str) and value in values)


_BETA = Kind("a number above 0 and below 1", lambda v: is_number(v) and 0 < v < 1)

_KINDS: dict[str, Kind] = {
    "_class_name": STR,
    "num_train_timesteps": COUNT,
    "beta_start": _BETA,
    "beta_end": _BETA,
    "beta_schedule": _one_of("linear", "scaled_linear", "squaredcos_cap_v2"),
    "trained_betas": Kind("null or a list of numbers", _is_betas),
    "prediction_type": _one_of("epsilon", "v_prediction"),
    "variance_type": optional(STR),
    "rescale_betas_zero_snr": BOOL,
    "use_flow_sigmas": optional(BOOL),
    "interpolation_type": STR,
    "timestep_type": STR,
    "clip_sample": BOOL,
    "clip_sample_range": POSITIVE,
    "set_alpha_to_one": BOOL,
    "steps_offset": Kind("a whole number of at least 0", lambda v: is_whole(v) and v >= 0),
    "timestep_spacing": _one_of("leading", "linspace", "trailing"),
    "thresholding": BOOL,
    "solver_order": COUNT,
    "algorithm_type": STR,
    "solver_type": STR,
    "final_sigmas_type": STR,
    "lambda_min_clipped": Kind("a number (-inf is one)", is_number),
    "use_karras_sigmas": optional(BOOL),
    "use_exponential_sigmas": optional(BOOL),
    "use_beta_sigmas": optional(BOOL),
    "use_lu_lambdas": optional(BOOL),
}

# Only classes whose defaults for absent keys are the ones used here. LCM, Heun and KDPM2, for
# example, have other default betas, and the flow and EDM classes another noise process.
_CLASSES = (
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
)

# Values under which the noise process, or what the network is fed or returns, is the one of
# `NoiseSchedule`. Any other value is refused by name.
_PROCESS: dict[str, tuple[Any, ...]] = {
    "_class_name": _CLASSES,
    "rescale_betas_zero_snr": (False,),
    "use_flow_sigmas": (False, None),
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
}


def refuse_kinds(config: Mapping[str, Any], source: str) -> None:
    """Raises `InputError` if a key that is understood here holds a value of the wrong kind.

    Args:
        config: a parsed `scheduler_config.json`. Keys that are not understood are passed over.
        source: where the config came from (a path or a URL), for the message.

    Raises:
        InputError: with the source, the key, the value and what is wanted.
    """
    for key, kind in _KINDS.items():
        if key in config and not kind.accepts(config[key]):
            raise InputError(
                f"{source}: {key} = {_show(config[key])} is of the wrong kind or not supported. "
                f"Set it to {kind.words}."
            )


def refuse_values(
    config: Mapping[str, Any],
    source: str,
    supported: Mapping[str, tuple[Any, ...]] = _PROCESS,
    what: str = "The noise process",
) -> None:
    """Raises `InputError` if a key that is present holds a value outside `supported[key]`.

    Args:
        config: a parsed `scheduler_config.json`.
        source: where the config came from, for the message.
        supported: the values that each key may take. An absent key is always accepted.
        what: what the value would change, at the start of a sentence.

    Raises:
        InputError: with the source, the key, the value and the supported values.
    """
    for key, values in supported.items():
        if key in config and config[key] not in values:
            shown = ", ".join(_show(v) for v in values)
            raise InputError(
                f"{source}: {key} = {_show(config[key])} is not supported. {what} would differ "
                f"from the one computed here. Use a checkpoint with one of: {shown}."
            )


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
