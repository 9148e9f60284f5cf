"""A small random pipeline of every part that music goes through, as a diffusers folder."""

from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.models import captions
from tda_jax.models.export import save_pipeline
from tda_jax.models.families import FAMILIES, initialise
from tda_jax.models.pretrained import Component, Pipeline, Record
from tests.models import cases, checkpoints

TOKENS = 9
_LIBRARIES = {"unet": "diffusers", "vae": "diffusers", "text_encoder": "transformers"}


def write(folder, said):
    """Writes it; its tokenizer is trained on the captions `said`."""
    tokenizer = captions.make_tokenizer(said, TOKENS, "clip")
    text = cases.SMALL["clip_text_gelu"]
    size = tokenizer.backend.get_vocab_size()
    end = tokenizer.backend.token_to_id("<|endoftext|>")
    text = text._replace(config=text.config | {"vocab_size": size, "eos_token_id": end})
    unet = cases.SMALL["one_level"]
    channels = cases.SMALL["vae_mel"].config["latent_channels"]
    wide = {"in_channels": channels, "out_channels": channels}
    wide["cross_attention_dim"] = text.config["hidden_size"]
    parts = {
        "vae": _component("vae", cases.SMALL["vae_mel"]),
        "text_encoder": _component("text_encoder", text),
        "unet": _component("unet", unet._replace(config=unet.config | wide)),
    }
    index = {"_class_name": "AudioLDMPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {name: [_LIBRARIES[name], c.record.class_name] for name, c in parts.items()}
    schedule = schedule_from_config({"clip_sample": False}, "test")
    save_pipeline(folder, Pipeline(parts, schedule, index, {}))
    captions.save_tokenizer(folder / "tokenizer", tokenizer)


def _component(name, case):
    family = FAMILIES[case.class_name]
    config = family.read_config(case.config, "test")
    record = Record(case.class_name, name, "raw", 0, f"a {name}", ())
    params = initialise(family, config, 0)
    groups = family.groups(config)
    return Component(family.build(config), params, groups, checkpoints.full_config(case), record)
