"""Our side of `benchmarks.sweep`: one track's draws, exact and linearised, through the engine."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.sweep_setting import NOISE, SETTINGS
from benchmarks.worker import serve
from tda_jax import devices, keys
from tda_jax.attribution import linearised, prepare, sweep
from tda_jax.attribution.contract import Model, split_group
from tda_jax.attribution.unet import unet_model
from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.examples import Example
from tda_jax.models.denoiser import Condition
from tda_jax.models.families import FAMILIES, template
from tda_jax.models.pretrained import Component, Record

_CLASS = "UNet2DConditionModel"


@functools.cache
def model(setting: str) -> Model:
    """The UNet with random weights; the work does not depend on their values."""
    family, chosen = FAMILIES[_CLASS], SETTINGS[setting]
    config = family.read_config(chosen.config, setting)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: jnp.asarray(0.02 * rng.standard_normal(s.shape, dtype=np.float32)),
        template(family, config),
    )
    record = Record(_CLASS, setting, "raw", 0, setting, ())
    unet = Component(family.build(config), params, family.groups(config), chosen.config, record)
    return unet_model(unet, schedule_from_config(NOISE, setting))


def track(setting: str, tracks: int) -> tuple[Example, list[str]]:
    """Random tracks."""
    chosen, rng = SETTINGS[setting], np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal((tracks, *shape), dtype=np.float32)

    condition = Condition(
        draw(chosen.class_dim) if chosen.class_dim else None,
        draw(chosen.tokens, chosen.text_dim) if chosen.tokens else None,
    )
    latent = draw(*chosen.size, chosen.config.get("in_channels", 4))
    mask = np.ones((tracks, chosen.size[0]), np.float32)
    return Example(latent, condition, mask), [str(i) for i in range(tracks)]


def exact(setting: str, draws: int, batch: int, tracks: int) -> Callable[[], Any]:
    """The losses of tracks under given parameters: "before" or "after"."""
    made = model(setting)
    moved, rest = split_group(made, SETTINGS[setting].group)
    examples, ids = track(setting, tracks)
    swept = sweep.make_sweep(made, keys.Draws(1, draws), 0, batch, devices.local_devices(1))
    placed = sweep.place(swept, moved, rest)
    moved = sweep.displaced(swept, placed, prepare.no_step(moved))
    return lambda: sweep.losses(swept, placed, moved, examples, ids).draws


def linear(
    setting: str, draws: int, batch: int, tracks: int, queries: int, blocks: int, dtype: str
) -> Callable[[], Any]:
    """The terms a and b of tracks along the directions of several queries."""
    made = model(setting)
    moved, rest = split_group(made, SETTINGS[setting].group)
    examples, ids = track(setting, tracks)
    used, plan = devices.local_devices(1), keys.Draws(1, draws)
    pairs = linearised.pairs(batch, queries * blocks)
    linear = linearised.make_linearised(made, plan, 0, pairs, used, dtype=dtype)
    placed = linearised.place(linear, moved, rest)
    rng = np.random.default_rng(2)
    directions = [
        {
            path: 1e-3 * rng.standard_normal((blocks, *leaf.shape), dtype=np.float32)
            for path, leaf in moved.items()
        }
        for _ in range(queries)
    ]
    along = linearised.place_directions(linear, directions)
    return lambda: linearised.expand(linear, placed, along, examples, ids).a


if __name__ == "__main__":
    serve({"exact": exact, "linear": linear})
