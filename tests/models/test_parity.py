"""Live parity with torch, diffusers and transformers on other weights than the golden ones."""

import pytest

from tda_jax.models.pretrained import load_component
from tests.models import cases, checkpoints, compare, flax_side, golden

pytestmark = pytest.mark.parity


SLOW = {"deep_uneven", "linear_heads"}  # minutes of compiling on a slow machine
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in cases.SMALL]


@pytest.mark.parametrize("name", NAMES)
def test_small_models_equal_torch(name, tmp_path):
    from tests.models import torch_side

    case = cases.SMALL[name]
    folder = golden.checkpoint(tmp_path / "model", name, seed=1)
    theirs = torch_side.run(folder, case, 1, cases.wanted(name))
    given = checkpoints.inputs(case, 1)
    ours = flax_side.run(load_component(folder), given, cases.wanted(name))
    print(compare.assert_parity(ours, theirs))


@pytest.mark.parametrize("name", cases.SMALL | cases.FULL)
def test_golden_names_and_shapes_are_torchs(name):
    from tests.models import torch_side

    case = (cases.SMALL | cases.FULL)[name]
    ours = {key: tuple(shape) for key, shape in golden.manifests()[name].items()}
    assert ours == torch_side.state_shapes(case)
