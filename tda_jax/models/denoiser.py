"""A UNet as the function of one example that losses and samplers take."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from tda_jax.models.unet import UNet2DConditionModel


class Condition(NamedTuple):
    """What one example is conditioned on; each part absent unless the model takes it."""

    embedding: Float[Array, " classdim"] | None = None  # CLAP, unit norm
    text: Float[Array, "tokens textdim"] | None = None
    text_mask: Bool[Array, " tokens"] | None = None  # True where there is a token


def predict_fn(module: UNet2DConditionModel) -> Callable[..., Float[Array, "h w c"]]:
    """predict(params, x_t, t, condition) → prediction, for one example (h, w, c).

    Map it over draws with the condition un-batched and the text's key and value projections are
    computed once for all draws.
    """

    def predict(
        params: Any, x_t: Float[Array, "h w c"], t: Any, condition: Condition
    ) -> Float[Array, "h w c"]:
        if not jnp.issubdtype(jnp.asarray(t).dtype, jnp.integer):
            raise TypeError(f"timestep {t} is no integer; this model knows the discrete ones only")
        rows = [None if part is None else part[None] for part in condition]
        times = jnp.asarray(t, jnp.int32)[None]
        return module.apply({"params": params}, x_t[None], times, *rows)[0]

    return predict
