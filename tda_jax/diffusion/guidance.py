"""Classifier-free guidance."""

from typing import Any

from jaxtyping import Array, Float

from tda_jax.diffusion.losses import Predict


def guided(predict_cond: Predict, predict_uncond: Predict, scale: float) -> Predict:
    """Makes a predict function that moves the prediction away from the unconditional one.

    uncond + scale * (cond - uncond): Ho & Salimans 2022, arXiv 2207.12598, eq. 6 with
    scale = 1 + w. Call it once and reuse the result: each call makes a new function, and `sample`
    compiles each function once.

    Args:
        predict_cond: (params, x_t, t, condition) -> prediction.
        predict_uncond: the same under the empty condition. It is given the same arguments, so one
            network serves both if the condition is a pair of which each reads its half.
        scale: 1 gives predict_cond itself, which runs one pass; above 1 guides.

    Returns:
        A function (params, x_t, t, condition) -> prediction.
    """
    if scale == 1:
        return predict_cond

    def predict(
        params: Any, x_t: Float[Array, "..."], t: Any, condition: Any
    ) -> Float[Array, "..."]:
        uncond = predict_uncond(params, x_t, t, condition)
        return uncond + scale * (predict_cond(params, x_t, t, condition) - uncond)

    return predict
