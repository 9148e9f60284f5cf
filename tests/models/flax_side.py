"""Runs a checkpoint folder in this library; outputs in torch's names and layouts."""

import jax
import jax.numpy as jnp
import numpy as np

from tda_jax import params as tree
from tda_jax.diffusion.losses import denoising_terms, masked_mse
from tda_jax.diffusion.samplers import ddim_plan, dpm_plan, sample
from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.models import names
from tda_jax.models.denoiser import Condition, predict_fn
from tda_jax.models.families import FAMILIES, slots

AUDIOLDM_NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def nchw(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def condition(given):
    keys = ("class_labels", "encoder_hidden_states", "encoder_attention_mask")
    return Condition(*(jnp.asarray(given[k]) if k in given else None for k in keys))


def torch_gradients(class_name, gradients):
    flat = tree.flatten(gradients)
    made = slots(FAMILIES[class_name], gradients)
    return {f"gradient:{s.torch_name}": names.to_torch(s, np.asarray(flat[s.path])) for s in made}


def _unet(component, given, wanted):
    predict = predict_fn(component.module)
    schedule = schedule_from_config(AUDIOLDM_NOISE, "test")
    x0, noise, t, cond = nhwc(given["x0"]), nhwc(given["noise"]), given["t"], condition(given)

    def one(params, x0, t, noise, cond):
        network = lambda x_t, t: predict(params, x_t, t, cond)  # noqa: E731
        prediction, target = denoising_terms(network, schedule, x0, t, noise)
        return masked_mse(prediction, target), prediction

    def total(params):
        losses, predictions = jax.vmap(one, (None, 0, 0, 0, 0))(params, x0, t, noise, cond)
        return losses.sum(), (losses, predictions)

    if "gradients" in wanted:
        gradients, (losses, predictions) = jax.jit(jax.grad(total, has_aux=True))(component.params)
    else:
        gradients, (losses, predictions) = None, jax.jit(total)(component.params)[1]
    out = {"prediction": nchw(predictions), "losses": np.asarray(losses)}
    if gradients is not None:
        out |= torch_gradients(component.record.class_name, gradients)
    if "samples" in wanted:
        batched = jax.vmap(predict, (None, 0, None, 0))
        for name, plan in (("ddim", ddim_plan(schedule, 10)), ("dpm", dpm_plan(schedule, 10))):
            out[name] = nchw(sample(batched, plan, component.params, noise, cond))
    return out


def _vae(component, given, wanted):
    apply = component.module.apply

    def total(params):
        posterior = apply({"params": params}, nhwc(given["x"]), method="encode")
        decoded = apply({"params": params}, nhwc(given["z"]), method="decode")
        value = jnp.square(decoded).sum() + jnp.square(posterior.mean).sum() + posterior.std.sum()
        return value, {"mean": posterior.mean, "std": posterior.std, "decoded": decoded}

    if "gradients" in wanted:
        gradients, out = jax.jit(jax.grad(total, has_aux=True))(component.params)
    else:
        gradients, out = None, jax.jit(total)(component.params)[1]
    out = {key: nchw(value) for key, value in out.items()}
    return out if gradients is None else out | torch_gradients("AutoencoderKL", gradients)


def _hifigan(component, given, wanted):
    def total(params):
        waveform = component.module.apply({"params": params}, jnp.asarray(given["mel"]))
        return jnp.square(waveform).sum(), waveform

    if "gradients" not in wanted:
        return {"waveform": np.asarray(jax.jit(total)(component.params)[1])}
    gradients, waveform = jax.jit(jax.grad(total, has_aux=True))(component.params)
    gradients.pop("mean"), gradients.pop("scale")  # buffers in torch
    return {"waveform": np.asarray(waveform)} | torch_gradients("SpeechT5HifiGan", gradients)


SIDES = {"UNet2DConditionModel": _unet, "AutoencoderKL": _vae, "SpeechT5HifiGan": _hifigan}


def run(component, given, wanted=("gradients", "samples")):
    return SIDES[component.record.class_name](component, given, wanted)
