"""The rival's side of `benchmarks.sweep`: losses of one track's draws by diffusers in torch.

As the ancestor does it (Wang et al. 2024, arXiv 2406.09408): the track's latent and text are
repeated to a batch, one call for each batch, so that the text is projected again for every draw.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from benchmarks.sweep_setting import NOISE, SETTINGS
from benchmarks.worker import serve

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMATS = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}


@functools.cache
def _net(setting: str, memory_format: str) -> UNet2DConditionModel:
    net = UNet2DConditionModel(**SETTINGS[setting].config).eval().to(DEVICE)
    return net.to(memory_format=FORMATS[memory_format])


def losses(
    setting: str, draws: int, batch: int, tracks: int, memory_format: str, *, compiled: bool
) -> Callable[[], Any]:
    """The losses of tracks under given parameters."""
    chosen, net = SETTINGS[setting], _net(setting, memory_format)
    predict = torch.compile(net, dynamic=False) if compiled else net
    schedule = DDPMScheduler(**NOISE)
    shape = (1, chosen.config.get("in_channels", 4), *chosen.size)
    latent = torch.randn(tracks, *shape, device=DEVICE)
    label = chosen.class_dim and torch.randn(tracks, 1, chosen.class_dim, device=DEVICE)
    text = chosen.tokens and torch.randn(tracks, 1, chosen.tokens, chosen.text_dim, device=DEVICE)
    times = torch.linspace(0, 999, draws, device=DEVICE).long()

    def call() -> Any:
        out = []
        with torch.inference_mode():
            for i in range(tracks):
                for start in range(0, draws, batch):
                    t = times[start : start + batch]
                    n = len(t)
                    clean = latent[i].expand(n, *shape[1:])
                    noise = torch.randn_like(clean).to(memory_format=FORMATS[memory_format])
                    noisy = schedule.add_noise(clean, noise, t)
                    prediction = predict(
                        noisy.to(memory_format=FORMATS[memory_format]),
                        t,
                        encoder_hidden_states=None if text is None else text[i].repeat(n, 1, 1),
                        class_labels=None if label is None else label[i].repeat(n, 1),
                    ).sample
                    out.append((prediction - noise).square().mean((1, 2, 3)))
            return torch.cat(out).cpu()

    return call


if __name__ == "__main__":
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    serve({"losses": losses})
