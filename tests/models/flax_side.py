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
from tests.models import cases, compare


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


def _value(wanted, function, params, *arguments):
    """A function's outputs, and the gradient of its scalar where that is wanted.

    Data are arguments, not constants: the next seed then finds the compiled program in the cache.
    """
    if "gradients" in wanted:
        return jax.jit(jax.grad(function, has_aux=True))(params, *arguments)
    return None, jax.jit(function)(params, *arguments)[1]


def _unet(component, given, wanted):
    predict = predict_fn(component.module)
    schedule = schedule_from_config(cases.AUDIOLDM_NOISE, "test")
    x0, noise, cond = nhwc(given["x0"]), nhwc(given["noise"]), condition(given)

    def one(params, x0, t, noise, cond):
        network = lambda x_t, t: predict(params, x_t, t, cond)  # noqa: E731
        prediction, target = denoising_terms(network, schedule, x0, t, noise)
        return masked_mse(prediction, target), prediction

    def total(params, *batch):
        losses, predictions = jax.vmap(one, (None, 0, 0, 0, 0))(params, *batch)
        return losses.sum(), {"losses": losses, "prediction": predictions}

    gradients, out = _value(wanted, total, component.params, x0, given["t"], noise, cond)
    out = {"prediction": nchw(out["prediction"]), "losses": np.asarray(out["losses"])}
    if "samples" in wanted:
        batched = jax.vmap(predict, (None, 0, None, 0))
        for name, plan in (("ddim", ddim_plan(schedule, 10)), ("dpm", dpm_plan(schedule, 10))):
            out[name] = nchw(sample(batched, plan, component.params, noise, cond))
    return gradients, out


def _vae(component, given, wanted):
    apply = component.module.apply

    def total(params, x, z):
        posterior = apply({"params": params}, x, method="encode")
        decoded = apply({"params": params}, z, method="decode")
        value = jnp.square(decoded).sum() + jnp.square(posterior.mean).sum() + posterior.std.sum()
        return value, {"mean": posterior.mean, "std": posterior.std, "decoded": decoded}

    x, z = nhwc(given["x"]), nhwc(given["z"])
    gradients, out = _value(wanted, total, component.params, x, z)
    return gradients, {key: nchw(value) for key, value in out.items()}


def _hifigan(component, given, wanted):
    def total(params, mel):
        waveform = component.module.apply({"params": params}, mel)
        return jnp.square(waveform).sum(), waveform

    gradients, waveform = _value(wanted, total, component.params, jnp.asarray(given["mel"]))
    if gradients is not None:
        gradients.pop("mean"), gradients.pop("scale")  # buffers in torch
    return gradients, {"waveform": np.asarray(waveform)}


def _clip_text(component, given, wanted):
    def total(params, ids):
        out = component.module.apply({"params": params}, ids)
        value = jnp.square(out.last_hidden_state).sum() + jnp.square(out.pooled).sum()
        return value, {"last_hidden_state": out.last_hidden_state, "pooled": out.pooled}

    gradients, out = _value(wanted, total, component.params, jnp.asarray(given["ids"]))
    return gradients, {key: np.asarray(value) for key, value in out.items()}


def _clap_text(component, given, wanted):
    def total(params, ids, mask, probe):
        embedding = component.module.apply({"params": params}, ids, mask)
        return (embedding * probe[None]).sum(), embedding

    probe = compare.probe(component.module.config.projection_dim)
    arguments = [jnp.asarray(x) for x in (given["ids"], given["mask"], probe)]
    gradients, embedding = _value(wanted, total, component.params, *arguments)
    return gradients, {"embedding": np.asarray(embedding)}


SIDES = {
    "UNet2DConditionModel": _unet,
    "AutoencoderKL": _vae,
    "SpeechT5HifiGan": _hifigan,
    "CLIPTextModel": _clip_text,
    "ClapTextModelWithProjection": _clap_text,
}


def run(component, given, wanted=("gradients", "samples")):
    name = component.record.class_name
    gradients, out = SIDES[name](component, given, wanted)
    return out if gradients is None else out | torch_gradients(name, gradients)
