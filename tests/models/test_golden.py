"""Parity with torch's recorded outputs: runs where torch is not installed."""

import numpy as np
import pytest

from tda_jax.models.families import FAMILIES, slots, template
from tda_jax.models.names import match
from tda_jax.models.pretrained import load_component
from tests.models import cases, checkpoints, compare, flax_side, golden

# The longest to compile; others of their kind are fast.
SLOW = {"sd_masked_odd", "deep_uneven", "audioldm_odd", "sinus_first", "class_added"}
SLOW |= {"linear_heads", "one_level", "no_mid", "sd", "vae_odd", "vae_image"}  # live in parity
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in cases.SMALL]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_losses_gradients_and_samples_equal_torch(name, tmp_path):
    component = load_component(golden.checkpoint(tmp_path / "model", name))
    given = checkpoints.inputs(cases.SMALL[name], golden.SEED)
    ours = flax_side.run(component, given, cases.wanted(name))
    compare.assert_parity(compare.sketched(ours), golden.outputs(name))


@pytest.mark.parametrize("name", cases.FULL)
def test_every_tensor_of_a_published_architecture_is_used_once(name):
    case, shapes = cases.FULL[name], golden.manifests()[name]
    family = FAMILIES[case.class_name]
    config = family.read_config(checkpoints.full_config(case), name)
    leaves = slots(family, template(family, config))
    feeds = match(leaves, {k: tuple(v) for k, v in shapes.items()}, name, family.aliases)
    used = [tensor for feed in feeds for tensor in feed.tensors]
    assert sorted(used) == sorted(shapes)
    tensors, parameters = cases.FULL_COUNTS[name]
    assert len(used) == len(leaves) == tensors
    counted = [feed.slot for feed in feeds if name != "hifigan_16k" or "/" in feed.slot.path]
    assert sum(int(np.prod(slot.torch_shape)) for slot in counted) == parameters
