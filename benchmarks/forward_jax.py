"""Our side of `benchmarks.forward`: per-example losses of AudioLDM-s through vmap."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.forward_setting import CHANNELS, CLASS_DIM, CONFIG, HEIGHT, WIDTH
from benchmarks.worker import serve
from tda_jax.diffusion.losses import per_example_loss
from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.models.denoiser import Condition, predict_fn
from tda_jax.models.families import FAMILIES, template
from tda_jax.models.unet import UNet2DConditionModel
from tda_jax.models.unet_config import unet_config

jax.config.update("jax_default_matmul_precision", "highest")


def losses() -> Callable[..., jax.Array]:
    """The jitted function from (params, latents, conditions, timesteps, noise) to losses."""
    schedule = schedule_from_config({"beta_schedule": "scaled_linear"}, "benchmark")
    loss = per_example_loss(predict_fn(UNet2DConditionModel(unet_config(CONFIG))), schedule)
    return jax.jit(jax.vmap(loss, (None, 0, 0, 0, 0)))


def arguments(batch: int, dtype: str) -> tuple[Any, ...]:
    """Random parameters and data; the work does not depend on their values."""
    rng = np.random.default_rng(0)
    shapes = template(FAMILIES["UNet2DConditionModel"], unet_config(CONFIG))

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape, dtype=np.float32), dtype)

    params = jax.tree.map(lambda s: 0.02 * draw(*s.shape), shapes)
    latents = draw(batch, HEIGHT, WIDTH, CHANNELS)
    noise = draw(batch, HEIGHT, WIDTH, CHANNELS)
    t = jnp.linspace(0, 999, batch).astype(jnp.int32)
    return params, latents, Condition(draw(batch, CLASS_DIM)), t, noise


def _losses(batch: int, dtype: str) -> Callable[[], Any]:
    function, given = losses(), arguments(batch, dtype)
    return lambda: jax.block_until_ready(function(*given))


def _product(size: int, dtype: str) -> Callable[[], Any]:
    """A plain matrix product: what the chip gives to one who asks for nothing else."""
    a = jnp.asarray(np.random.default_rng(0).standard_normal((size, size)), dtype)
    product = jax.jit(lambda a: a @ a)
    return lambda: jax.block_until_ready(product(a))


if __name__ == "__main__":
    serve({"losses": _losses, "product": _product})
