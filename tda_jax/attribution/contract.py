"""What a model must offer to be attributed: terms of its loss, parameters, groups, a schedule.

Everything in this package works through `Model` and knows nothing else of a network. A UNet from
`tda_jax.models` becomes one by `tda_jax.attribution.unet.unet_model`; a network of your own needs
one pure function. `tda_jax.attribution.conformance.check` says whether it keeps the contract.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from tda_jax import params as tree
from tda_jax.diffusion.losses import masked_mse
from tda_jax.errors import InputError
from tda_jax.examples import Example


class Terms(NamedTuple):
    """What the loss of one draw is made of: the mean over kept elements of (prediction - target)².

    Attributes:
        prediction: of the latent's shape, in any floating type.
        target: of the same shape; it must not depend on the parameters.
        mask: (frames,), or of as many axes as the latent, each of its length or 1: the weight of
            an element in the loss.
    """

    prediction: Array
    target: Array
    mask: Array


class Model(NamedTuple):
    """A diffusion model to attribute.

    Attributes:
        terms: (params, example, t, noise) -> Terms, for one example without a batch axis, a
            timestep t (an integer in 0 .. timesteps-1) and noise of the latent's shape. Pure,
            without dropout, differentiable twice in forward and once in reverse mode.
        params: nested dicts of arrays; averaged (EMA) weights where there are any.
        groups: name -> regular expression over paths joined by "/", which parameters an
            unlearning step may move.
        timesteps: T, the length of the schedule.
        fingerprint: of the weights and whatever else the terms depend on; results name it.
    """

    terms: Callable[[Any, Example, Array, Array], Terms]
    params: Mapping[str, Any]
    groups: Mapping[str, str]
    timesteps: int
    fingerprint: str


def loss_of(terms: Terms) -> Float[Array, ""]:
    """The loss of one draw, float32 or, for float64 terms, float64."""
    return masked_mse(terms.prediction, terms.target, terms.mask)


def weights_of(terms: Terms, dtype: Any) -> Array:
    """The weight of each element in the loss, of the latent's shape, with a sum of 1."""
    mask = terms.mask.astype(dtype)
    if mask.ndim == 1:
        mask = mask.reshape(mask.shape + (1,) * (terms.target.ndim - 1))
    weight = jnp.broadcast_to(mask, terms.target.shape)
    return weight / weight.sum()


def split_group(model: Model, group: str) -> tuple[tree.Flat, tree.Flat]:
    """The parameters of a group, and the rest, as flat dicts.

    Raises:
        InputError: the model has no such group, or its pattern selects nothing.
    """
    if group not in model.groups:
        raise InputError(
            f"this model has no parameter group {group!r}; choose one of {sorted(model.groups)}"
        )
    return tree.split(model.params, model.groups[group])
