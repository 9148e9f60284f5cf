"""A denoiser as a `Model` to attribute: a loaded UNet, or any function that predicts."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from tda_jax import fingerprint
from tda_jax import params as tree
from tda_jax.attribution.contract import Model, Terms
from tda_jax.diffusion.losses import Predict, denoising_terms
from tda_jax.diffusion.schedules import NoiseSchedule, schedule_to_config
from tda_jax.examples import Example
from tda_jax.models.denoiser import predict_fn
from tda_jax.models.pretrained import Component


def unet_model(unet: Component, schedule: NoiseSchedule) -> Model:
    """The contract of a UNet: examples have a `tda_jax.models.denoiser.Condition` each.

    Args:
        unet: from `load_pipeline(folder).components["unet"]`.
        schedule: the noise process that it was trained with.
    """
    # The parameters themselves, too: they may have been changed since they were loaded.
    leaves = sorted(tree.flatten(unet.params).items())
    arrays = [f"{path} {x.dtype} {x.shape} {fingerprint.of_array(x)}" for path, x in leaves]
    weights = fingerprint.of_text(unet.record.fingerprint, *arrays)
    return denoiser_model(predict_fn(unet.module), schedule, unet.params, unet.groups, weights)


def denoiser_model(
    predict: Predict,
    schedule: NoiseSchedule,
    params: Mapping[str, Any],
    groups: Mapping[str, str],
    weights: str,
) -> Model:
    """The contract of a function of one example that predicts the schedule's target.

    Args:
        predict: (params, x_t, t, condition) -> prediction.
        schedule: the noise process that it was trained with.
        params: nested dicts of arrays, all of one floating type.
        groups: name -> pattern over the paths of `params`.
        weights: a fingerprint of `params` and of what `predict` computes.
    """

    def terms(params: Any, example: Example, t: Array, noise: Array) -> Terms:
        dtype = jax.tree.leaves(params)[0].dtype  # parameters in half precision: so the network
        condition = jax.tree.map(lambda x: _floating(x, dtype), example.condition)
        prediction, target = denoising_terms(
            lambda x_t, t: predict(params, x_t.astype(dtype), t, condition),
            schedule,
            example.latent,
            t,
            noise,
        )
        return Terms(prediction, target, example.mask)

    process = repr(sorted(schedule_to_config(schedule).items()))
    made_of = fingerprint.of_text(weights, process)
    return Model(terms, params, groups, len(schedule.alpha), made_of)


def _floating(x: Array, dtype: Any) -> Array:
    """The array in a floating type; masks and whole numbers as they are."""
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
