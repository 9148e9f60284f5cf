"""The rival's side of `benchmarks.forward`: diffusers' UNet in eager and compiled torch."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from benchmarks.forward_setting import CHANNELS, CLASS_DIM, CONFIG, HEIGHT, WIDTH
from benchmarks.worker import serve

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMATS = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}


@functools.cache
def _net(memory_format: str, dtype: str) -> UNet2DConditionModel:
    net = UNet2DConditionModel(**CONFIG).eval().to(DEVICE, getattr(torch, dtype))
    return net.to(memory_format=FORMATS[memory_format])


def _losses(batch: int, dtype: str, memory_format: str, *, compiled: bool) -> Callable[[], Any]:
    net = _net(memory_format, dtype)
    predict = torch.compile(net, dynamic=False) if compiled else net
    schedule = DDPMScheduler(beta_schedule="scaled_linear")
    kind = {"device": DEVICE, "dtype": getattr(torch, dtype)}
    shape = (batch, CHANNELS, HEIGHT, WIDTH)
    latents, noise = (
        torch.randn(shape, **kind).to(memory_format=FORMATS[memory_format]) for _ in range(2)
    )
    labels = torch.randn(batch, CLASS_DIM, **kind)
    t = torch.linspace(0, 999, batch, device=DEVICE).long()

    def call() -> Any:
        with torch.inference_mode():
            noisy = schedule.add_noise(latents, noise, t)
            prediction = predict(noisy, t, encoder_hidden_states=None, class_labels=labels).sample
            return (prediction - noise).float().square().mean((1, 2, 3)).cpu()

    return call


def _product(size: int, dtype: str) -> Callable[[], Any]:
    a = torch.randn(size, size, device=DEVICE, dtype=getattr(torch, dtype))

    def call() -> Any:
        product = a @ a
        return product[0, 0].item() if DEVICE == "cuda" else product

    return call


if __name__ == "__main__":
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    serve({"losses": _losses, "product": _product})
