"""A loaded UNet as a model to attribute."""

import jax
import jax.numpy as jnp

from tda_jax.attribution.unet import unet_model
from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.models import families, pretrained
from tests.models import cases

CASE = cases.SMALL["one_level"]
SCHEDULE = schedule_from_config(cases.AUDIOLDM_NOISE, "test")


def test_its_fingerprint_is_of_the_parameters_that_it_has():
    """Parameters may be changed after they were loaded: cast, averaged, trained on."""
    family = families.FAMILIES[CASE.class_name]
    config = family.read_config(CASE.config, "test")
    params = families.initialise(family, config, 0)
    record = pretrained.Record(CASE.class_name, "test", "raw", 0, "one checkpoint", ())

    def fingerprint(params):
        groups = family.groups(config)
        unet = pretrained.Component(family.build(config), params, groups, CASE.config, record)
        return unet_model(unet, SCHEDULE).fingerprint

    same = jax.tree.map(jnp.array, params)
    other = jax.tree.map(lambda x: x * (1 + 1e-6), params)
    cast = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    assert fingerprint(params) == fingerprint(same)
    assert len({fingerprint(p) for p in (params, other, cast)}) == 3
