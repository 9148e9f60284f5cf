"""Settings of transformers' `SpeechT5HifiGan`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tda_jax.kinds import BOOL, COUNT, COUNT_LISTS, COUNTS, NUMBER, Kind
from tda_jax.models.config_keys import read_keys, require


@dataclass(frozen=True)
class HifiGanConfig:
    """Settings of transformers' `SpeechT5HifiGan`; rates in Hz, kernels in samples."""

    model_in_dim: int
    sampling_rate: int
    upsample_initial_channel: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    leaky_relu_slope: float
    normalize_before: bool


_HIFIGAN_KINDS: dict[str, Kind] = {
    "model_in_dim": COUNT,
    "sampling_rate": COUNT,
    "upsample_initial_channel": COUNT,
    "upsample_rates": COUNTS,
    "upsample_kernel_sizes": COUNTS,
    "resblock_kernel_sizes": COUNTS,
    "resblock_dilation_sizes": COUNT_LISTS,
    "leaky_relu_slope": NUMBER,
    "normalize_before": BOOL,
}
_HIFIGAN_DEFAULTS: dict[str, Any] = {
    "model_in_dim": 80,
    "sampling_rate": 16000,
    "upsample_initial_channel": 512,
    "upsample_rates": (4, 4, 4, 4),
    "upsample_kernel_sizes": (8, 8, 8, 8),
    "resblock_kernel_sizes": (3, 7, 11),
    "resblock_dilation_sizes": ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    "leaky_relu_slope": 0.1,
    "normalize_before": True,
}


def hifigan_config(
    config: Mapping[str, Any], source: str = "the vocoder's config"
) -> HifiGanConfig:
    """Reads the config of transformers' `SpeechT5HifiGan`.

    transformers writes many keys of its base class into the file, so unknown keys are passed over.

    Raises:
      InputError: a key of the wrong kind, or lists that do not fit each other.
    """
    c = _HIFIGAN_DEFAULTS | read_keys(config, source, _HIFIGAN_KINDS, {}, refuse_unknown=False)
    pairs = (
        ("upsample_rates", "upsample_kernel_sizes"),
        ("resblock_kernel_sizes", "resblock_dilation_sizes"),
    )
    for first, second in pairs:
        require(
            len(c[first]) == len(c[second]), source, second, c[second], f"give one for each {first}"
        )
    for rate, kernel in zip(c["upsample_rates"], c["upsample_kernel_sizes"], strict=True):
        require(
            kernel >= rate,
            source,
            "upsample_kernel_sizes",
            kernel,
            f"it must reach its rate {rate}",
        )
    for kernel in c["resblock_kernel_sizes"]:
        require(
            kernel % 2 == 1, source, "resblock_kernel_sizes", kernel, "an even one keeps no length"
        )
    return HifiGanConfig(**c)
