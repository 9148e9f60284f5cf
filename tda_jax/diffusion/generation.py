"""Generated latents: from ids and a seed, under a prompt's condition and a guidance scale."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from tda_jax import keys
from tda_jax.diffusion.guidance import guided
from tda_jax.diffusion.losses import Predict
from tda_jax.diffusion.samplers import ddim_plan, dpm_plan, sample
from tda_jax.diffusion.schedules import NoiseSchedule
from tda_jax.errors import InputError

Sampler = Literal["dpm", "ddim"]
_PLANS = {"dpm": dpm_plan, "ddim": ddim_plan}


class Recipe(NamedTuple):
    """How latents are generated.

    Attributes:
        sampler: "dpm", DPM-Solver++(2M), or "ddim".
        steps: of the sampler.
        guidance: scale of classifier-free guidance; 1 for none.
        seed: of the starting noise, together with the id of what is generated.
    """

    sampler: Sampler = "dpm"
    steps: int = 25
    guidance: float = 2.5
    seed: int = 0


def generate(
    predict: Predict,
    schedule: NoiseSchedule,
    params: Any,
    ids: Sequence[str],
    condition: Any,
    negative: Any,
    shape: tuple[int, ...],
    recipe: Recipe,
) -> Float[np.ndarray, "n ..."]:
    """Samples a latent for each id; what else is generated beside it changes it by rounding alone.

    Args:
        predict: (params, x_t, t, condition) -> prediction, for one example.
        schedule: the noise process.
        params: given to predict.
        ids: n names.
        condition: of the prompts, with a leading axis of n.
        negative: of the negative prompts, likewise; an empty prompt's where there is none.
        shape: of one latent.
        recipe: how to sample.

    Returns:
        (n, *shape), in the model's scaling.

    Raises:
        InputError: the recipe cannot be carried out, or a latent is not finite.
    """
    refuse_recipe(recipe)
    root = keys.root(recipe.seed, keys.Domain.GENERATION)

    def noise(words: Any) -> Any:
        return keys.draw_noise(keys.draw_key(root, words, 0), shape)

    def one(params: Any, x: Any, t: Any, pair: Any) -> Any:
        both = [lambda *given, i=i: predict(*given[:3], given[3][i]) for i in range(2)]
        return guided(*both, recipe.guidance)(params, x, t, pair)

    start = jax.vmap(noise)(jnp.asarray(keys.track_words(ids)))
    plan = _PLANS[recipe.sampler](schedule, recipe.steps)
    over_ids = jax.vmap(one, in_axes=(None, 0, None, 0))
    out = np.asarray(sample(over_ids, plan, params, start, (condition, negative)))
    bad = [name for name, x in zip(ids, out, strict=True) if not np.isfinite(x).all()]
    if bad:
        raise InputError(
            f"the latents generated for {bad[:5]} are not finite; lower the guidance scale, or "
            "check that schedule and weights belong together"
        )
    return out


def refuse_recipe(recipe: Recipe) -> None:
    """Refuses a recipe that cannot be carried out.

    Raises:
        InputError: names the setting.
    """
    if recipe.sampler not in get_args(Sampler):
        raise InputError(f"sampler = {recipe.sampler!r}; choose one of {list(get_args(Sampler))}")
    if recipe.steps < 1:
        raise InputError(f"steps = {recipe.steps}; give 1 at least")
    if not 1 <= recipe.guidance < float("inf"):
        raise InputError(f"guidance = {recipe.guidance}; give 1 for none, or more")
