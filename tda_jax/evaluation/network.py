"""A network to be trained and attributed, whatever its family."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tda_jax.attribution.contract import Model
from tda_jax.attribution.unet import denoiser_model
from tda_jax.diffusion.losses import Predict
from tda_jax.diffusion.schedules import NoiseSchedule


class Network(NamedTuple):
    """A network to be trained and attributed.

    Attributes:
        predict: (params, x_t, t, condition) -> prediction, for one example.
        schedule: the noise process.
        params: to start from.
        groups: name -> pattern over the paths of `params`.
    """

    predict: Predict
    schedule: NoiseSchedule
    params: Mapping[str, Any]
    groups: Mapping[str, str]


def model_of(network: Network, params: Any, weights: str) -> Model:
    """A network with given parameters, as what is attributed; `weights` is their fingerprint."""
    return denoiser_model(network.predict, network.schedule, params, network.groups, weights)
