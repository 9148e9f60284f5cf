"""The denoising loss of one example, with noise and time as arguments.

Nothing here is random and nothing knows of a batch: the loss of a draw is a function of the
parameters, the example, t and the noise alone, so it cannot depend on batch size, device count or
corpus order. Batches come by `jax.vmap`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tda_jax.diffusion.schedules import NoiseSchedule, Time
from tda_jax.diffusion.targets import add_noise, target
from tda_jax.errors import InputError
from tda_jax.precision import in_working_dtype

Mask = Bool[Array, "..."] | Int[Array, "..."] | Float[Array, "..."]
"""1 (or True) where a latent counts, 0 where it does not; a float may weigh it in between."""

Predict = Callable[[Any, Float[Array, "..."], Any, Any], Float[Array, "..."]]
"""predict(params, x_t, t, condition) -> prediction, of the shape of x_t."""


def denoising_terms(
    predict: Callable[[Float[Array, "*shape"], Time], Float[Array, "*shape"]],
    schedule: NoiseSchedule,
    x0: Float[Array, "*shape"],
    t: Time,
    noise: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The network's prediction for a noised example, and what it should have been.

    The pair is what a derivative of the output needs too: the residual is their difference.

    Args:
        predict: the network, bound to its parameters and condition: (x_t, t) -> prediction.
        schedule: the noise process.
        x0: one clean latent without a batch axis, (H = time, W = mel bins, C) or (T, C), in the
            model's scaling.
        t: timestep, 0 .. T-1.
        noise: standard normal.

    Returns:
        Prediction (in the network's own type) and target (in that of x0).
    """
    return predict(add_noise(schedule, x0, noise, t), t), target(schedule, x0, noise, t)


def masked_mse(
    prediction: Float[Array, "*shape"],
    target: Float[Array, "*shape"],
    mask: Mask | None = None,
) -> Float[Array, ""]:
    """The squared error averaged over the latent elements that the mask keeps.

    With a mask m over H time frames of a latent (H, W, C): sum(m * se) / (C * W * sum(m)).

    Args:
        prediction: the network's output for one example.
        target: what it should be, of the same shape.
        mask: over time frames, (H,), or of as many axes as the latent, each of its length or 1.
            Values 0 .. 1. None counts every element.

    Returns:
        A scalar, float32 or, for float64 predictions, float64: 16-bit inputs are cast before they
        are subtracted. It is nan, never 0, if the mask keeps nothing: a traced mask cannot raise.
        An element that is nan or inf makes it nan even where the mask is 0.

    Raises:
        InputError: if the shapes differ or the mask does not fit them.
    """
    if prediction.shape != target.shape:
        raise InputError(
            f"prediction and target differ in shape: {prediction.shape} and {target.shape}. Give "
            "one example to a predict function that keeps the shape of its input."
        )
    prediction, target = in_working_dtype(prediction, target)
    squared = jnp.square(prediction - target)
    if mask is None:
        return jnp.mean(squared)
    weight = _align(mask, squared.shape).astype(squared.dtype)
    repeats = math.prod(squared.shape) // weight.size  # elements that one mask value stands for
    return jnp.sum(weight * squared) / (repeats * jnp.sum(weight))


def per_example_loss(predict: Predict, schedule: NoiseSchedule) -> Callable[..., Float[Array, ""]]:
    """Makes the loss of one draw of one example, a pure function to differentiate and to map.

    Args:
        predict: (params, x_t, t, condition) -> prediction, for one example without a batch axis.
            Without dropout: the same draw must give the same loss before and after unlearning.
        schedule: the noise process.

    Returns:
        loss(params, x0, condition, t, noise, mask=None) -> scalar, as `masked_mse` of
        `denoising_terms`. Over draws of one example:
        `jax.vmap(loss, in_axes=(None, None, None, 0, 0))`.
    """

    def loss(
        params: Any,
        x0: Float[Array, "*shape"],
        condition: Any,
        t: Time,
        noise: Float[Array, "*shape"],
        mask: Mask | None = None,
    ) -> Float[Array, ""]:
        prediction, wanted = denoising_terms(
            lambda x_t, t: predict(params, x_t, t, condition), schedule, x0, t, noise
        )
        return masked_mse(prediction, wanted, mask)

    return loss


def _align(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """Gives a mask over time frames the trailing axes of a latent, (H,) to (H, 1, .., 1)."""
    if mask.ndim == 1 and len(shape) > 1:
        mask = mask.reshape(mask.shape + (1,) * (len(shape) - 1))
    fits = mask.ndim == len(shape) and all(
        m in (1, n) for m, n in zip(mask.shape, shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"the mask's shape {mask.shape} does not fit a latent of shape {shape}. Give one value "
            f"per time frame, ({shape[0] if shape else 0},), or an axis of length 1 or its own for "
            "each axis of the latent."
        )
    return mask
