"""Writes golden.json: numbers of diffusers' schedulers that the tests compare with, without torch.

Run from the repository root, in an environment with the extra [parity]:

    python tests/diffusion/make_golden.py
"""

import json
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("golden.json")

AUDIOLDM = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
COSINE_V = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "squaredcos_cap_v2",
    "clip_sample": True,
    "clip_sample_range": 1.5,
    "prediction_type": "v_prediction",
}
CASES = {"audioldm": AUDIOLDM, "stable_diffusion": STABLE_DIFFUSION, "cosine_v": COSINE_V}
TIMES = [0, 1, 37, 500, 998, 999]
SHAPE = (6, 5, 4)


def arrays():
    """A latent, noise and the weight of the toy network, float32."""
    rng = np.random.RandomState(7)  # its stream is frozen for ever
    x0, noise = rng.randn(2, *SHAPE).astype(np.float32)
    return x0, noise, rng.randn(SHAPE[-1], SHAPE[-1]).astype(np.float32)


def network(tanh, x, share, weight):
    """A nonlinear stand-in for a UNet, for torch and JAX alike; share is t / T as a float.

    Like a real one, it takes x for noise at high t, so that samples stay of order 1.
    """
    return share * x + 0.5 * (1.0 - share) * tanh(x @ weight)


def run_diffusers(scheduler, num_steps, x, weight):
    """Samples with a diffusers scheduler and the toy network; returns timesteps and the sample."""
    import torch

    scheduler.set_timesteps(num_steps)
    x, weight = torch.from_numpy(x), torch.from_numpy(weight)
    for t in scheduler.timesteps:
        output = network(torch.tanh, x, t.item() / 1000, weight)
        x = scheduler.step(output, t, x).prev_sample
    return scheduler.timesteps.tolist(), x.numpy()


def _case(config):
    import torch
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    x0, noise, weight = arrays()
    ddim = DDIMScheduler.from_config(config)
    t = torch.tensor(TIMES)
    clean = torch.from_numpy(x0).expand(len(TIMES), *SHAPE)
    eps = torch.from_numpy(noise).expand(len(TIMES), *SHAPE)
    result = {
        "alphas_cumprod": ddim.alphas_cumprod[t].tolist(),
        "noisy": ddim.add_noise(clean, eps, t)[:, 0].tolist(),
        "velocity": ddim.get_velocity(clean, eps, t)[:, 0].tolist(),
    }
    dpm = DPMSolverMultistepScheduler.from_config(config)
    for name, scheduler in {"ddim": ddim, "dpm": dpm}.items():
        timesteps, sample = run_diffusers(scheduler, 10, noise, weight)
        result[name] = {"timesteps": timesteps, "sample": sample.tolist()}
    return result


def main():
    """Writes the file, with the versions that made it."""
    import diffusers
    import torch

    golden = {
        "made_by": "tests/diffusion/make_golden.py",
        "versions": {"diffusers": diffusers.__version__, "torch": torch.__version__},
        "cases": {name: _case(config) for name, config in CASES.items()},
    }
    GOLDEN.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
