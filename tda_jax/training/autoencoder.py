"""Training of a VAE on spectrograms: reconstruction, and a weak pull towards a normal latent."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tda_jax.errors import InputError
from tda_jax.models.vae import AutoencoderKL
from tda_jax.named_draws import generator
from tda_jax.training import loop
from tda_jax.training.checkpoints import Checkpoints


class Objective(NamedTuple):
    """What a VAE is trained for.

    Attributes:
        crop: frames of a training example, a multiple of the VAE's factor: fewer than a window
            has, since what a convolution learns holds for any length.
        divergence: weight of the KL divergence per latent element (Rombach et al. 2022: 1e-6 of
            the sum over a latent).
    """

    crop: int
    divergence: float


def fit(
    module: AutoencoderKL,
    params: Any,
    inputs: Float[np.ndarray, "n frames mels 1"],
    objective: Objective,
    recipe: loop.Recipe,
    checkpoints: Checkpoints | None = None,
    callback: Callable[[int, Any], None] | None = None,
    callback_steps: tuple[int, ...] = (),
) -> loop.Trained:
    """Trains on random crops; see `loop.train`.

    Args:
        module: what to train.
        params: to start from; see `fitted_start`.
        inputs: log-mel spectrograms.
        objective: what for.
        recipe: how.
        checkpoints: where to keep what is done.
        callback: called with (updates done, averaged parameters) at `callback_steps`.
        callback_steps: numbers of updates, in 1 .. steps.

    Raises:
        InputError: the crop does not fit, or as `loop.train`.
    """
    n, frames = inputs.shape[:2]
    crop, factor = objective.crop, module.config.factor
    if not factor <= crop <= frames or crop % factor:
        raise InputError(
            f"crop = {crop} frames; give a multiple of {factor} from {factor} to {frames}"
        )

    def rows(step: int, positions: np.ndarray) -> np.ndarray:
        starts = generator(recipe.seed, f"crops of step {step}").integers(
            0, frames - crop + 1, len(positions)
        )
        return np.stack([inputs[i, s : s + crop] for i, s in zip(positions, starts, strict=True)])

    loss = _loss(module, objective.divergence)
    return loop.train(loss, params, rows, n, recipe, checkpoints, callback, callback_steps)


def fitted_start(params: Any, inputs: Float[np.ndarray, "n frames mels 1"]) -> Any:
    """Parameters whose untrained output has the mean and the spread of the inputs.

    Log-mels lie far from zero; a decoder would spend its first hundred updates on getting there.
    """
    mean, std = np.float32(inputs.mean()), np.float32(inputs.std())
    out = params["decoder"]["conv_out"]
    moved = {"kernel": out["kernel"] * std, "bias": jnp.full_like(out["bias"], mean)}
    return params | {"decoder": params["decoder"] | {"conv_out": moved}}


def latent_scale(means: Float[np.ndarray, "..."], stds: Float[np.ndarray, "..."]) -> float:
    """The `scaling_factor`: 1 over the standard deviation of a latent element (arXiv 2112.10752).

    Args:
        means: of the posteriors of a corpus, unscaled.
        stds: of the same.
    """
    variance = np.var(means, dtype=np.float64) + np.square(stds, dtype=np.float64).mean()
    return float(variance**-0.5)


def _loss(module: AutoencoderKL, divergence: float) -> loop.Loss:
    """(params, crops, key) -> the mean absolute error plus the weighted divergence."""

    def loss(params: Any, x: Array, key: Array) -> Array:
        variables = {"params": params}
        q = module.apply(variables, x, method="encode")
        z = q.mean + q.std * jax.random.normal(key, q.mean.shape, q.mean.dtype)
        error = jnp.abs(module.apply(variables, z, method="decode") - x).mean()
        variance = jnp.square(q.std)
        away = 0.5 * (jnp.square(q.mean) + variance - 1 - jnp.log(variance)).mean()
        return error + np.float32(divergence) * away

    return loss
