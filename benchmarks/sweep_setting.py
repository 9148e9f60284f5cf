"""The settings that both sides of `benchmarks.sweep` share: shapes, widths, noise process."""

from typing import Any, NamedTuple

from benchmarks.forward_setting import CLASS_DIM
from benchmarks.forward_setting import CONFIG as AUDIOLDM_S

NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195}


class Setting(NamedTuple):
    """A UNet and what it is swept over."""

    config: dict[str, Any]
    size: tuple[int, int]  # of a latent, frames first
    group: str  # that a linearised pass moves
    class_dim: int | None = None
    tokens: int | None = None
    text_dim: int | None = None


SETTINGS = {
    "audioldm_s": Setting(AUDIOLDM_S, (256, 16), "transformer", class_dim=CLASS_DIM),
    # Stable Diffusion's layout at half its widths, on spectrogram-shaped latents.
    "text_unet": Setting(
        {
            "block_out_channels": [160, 320, 640, 640],
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        (64, 16),
        "cross_attention_kv",
        tokens=77,
        text_dim=768,
    ),
}
