"""Runs a checkpoint folder in torch: the reference. As a program, in a process of its own.

    python -m tests.models.torch_side FOLDER CASE OUT.npz [gradients] [samples]

The gradients come out sketched.
"""

import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers

from tests.models import cases, checkpoints, compare


def model_class(class_name):
    library = transformers if class_name in checkpoints.TRANSFORMERS else diffusers
    return getattr(library, class_name)


def model(folder, class_name):
    return model_class(class_name).from_pretrained(folder).eval()


def _predict(net, given, sample, t):
    return net(
        sample,
        t,
        encoder_hidden_states=given.get("encoder_hidden_states"),
        class_labels=given.get("class_labels"),
        encoder_attention_mask=given.get("encoder_attention_mask"),
    ).sample


def _losses(net, given):
    schedule = diffusers.DDPMScheduler.from_config(cases.AUDIOLDM_NOISE)
    t = given["t"].long()
    noisy = schedule.add_noise(given["x0"], given["noise"], t)
    prediction = _predict(net, given, noisy, t)
    return prediction, ((prediction - given["noise"]) ** 2).mean(dim=(1, 2, 3))


def _sample(net, given, scheduler_class):
    schedule = scheduler_class.from_config(cases.AUDIOLDM_NOISE)
    schedule.set_timesteps(10)
    x = given["noise"]
    with torch.no_grad():
        for t in schedule.timesteps:
            x = schedule.step(_predict(net, given, x, t), t, x).prev_sample
    return x


def _unet(net, given, wanted):
    prediction, losses = _losses(net, given)
    out = {"prediction": prediction, "losses": losses}
    if "gradients" in wanted:
        losses.sum().backward()
        out |= {f"gradient:{name}": p.grad for name, p in net.named_parameters()}
    if "samples" in wanted:
        out["ddim"] = _sample(net, given, diffusers.DDIMScheduler)
        out["dpm"] = _sample(net, given, diffusers.DPMSolverMultistepScheduler)
    return out


def _vae(net, given, wanted):
    posterior = net.encode(given["x"]).latent_dist
    decoded = net.decode(given["z"]).sample
    if "gradients" in wanted:
        (decoded.square().sum() + posterior.mean.square().sum() + posterior.std.sum()).backward()
    out = {"mean": posterior.mean, "std": posterior.std, "decoded": decoded}
    gradients = [(n, p.grad) for n, p in net.named_parameters() if p.grad is not None]
    return out | {f"gradient:{name}": g for name, g in gradients}


def _hifigan(net, given, wanted):
    waveform = net(given["mel"])
    if "gradients" in wanted:
        waveform.square().sum().backward()
    # `mean` and `scale` are buffers in torch, so they have no gradient there.
    gradients = [(n, p.grad) for n, p in net.named_parameters() if p.grad is not None]
    return {"waveform": waveform} | {f"gradient:{name}": g for name, g in gradients}


def _gradients(net):
    return {f"gradient:{n}": p.grad for n, p in net.named_parameters() if p.grad is not None}


def _clip_text(net, given, wanted):
    out = net(given["ids"].long())
    states, pooled = out.last_hidden_state, out.pooler_output
    if "gradients" in wanted:
        (states.square().sum() + pooled.square().sum()).backward()
    return {"last_hidden_state": states, "pooled": pooled} | _gradients(net)


def _clap_text(net, given, wanted):
    out = net(given["ids"].long(), attention_mask=given["mask"].long())
    # What AudioLDMPipeline does before the embedding becomes class labels.
    embedding = torch.nn.functional.normalize(out.text_embeds, dim=-1)
    if "gradients" in wanted:
        (embedding * torch.from_numpy(compare.probe(embedding.shape[-1]))).sum().backward()
    return {"embedding": embedding} | _gradients(net)


SIDES = {
    "UNet2DConditionModel": _unet,
    "AutoencoderKL": _vae,
    "SpeechT5HifiGan": _hifigan,
    "CLIPTextModel": _clip_text,
    "ClapTextModelWithProjection": _clap_text,
}


def state_shapes(case):
    """Names and shapes of a case's state dict, without integer tables; nothing is allocated."""
    cls = model_class(case.class_name)
    with torch.device("meta"):
        if case.class_name in checkpoints.TRANSFORMERS:
            net = cls(cls.config_class(**case.config))
        else:
            net = cls(**case.config)
    tensors = net.state_dict().items()
    return {name: tuple(t.shape) for name, t in tensors if t.is_floating_point()}


def run(folder, case, seed=0, wanted=("gradients", "samples")):
    """Outputs in torch's names and layouts, as numpy arrays."""
    net = model(folder, case.class_name)
    given = {key: torch.from_numpy(value) for key, value in checkpoints.inputs(case, seed).items()}
    with torch.set_grad_enabled("gradients" in wanted):
        out = SIDES[case.class_name](net, given, wanted)
    return {key: value.detach().numpy() for key, value in out.items()}


def main(folder, name, out, *wanted):
    outputs = run(Path(folder), (cases.SMALL | cases.FULL)[name], wanted=wanted)
    np.savez(out, **compare.sketched(outputs))


if __name__ == "__main__":
    main(*sys.argv[1:])
