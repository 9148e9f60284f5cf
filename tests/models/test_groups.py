"""Named groups select what they say, counted against the published architectures."""

import functools

import numpy as np
import pytest

from tda_jax import params as tree
from tda_jax.errors import InputError
from tda_jax.models.families import FAMILIES, template
from tda_jax.models.groups import group_pattern
from tests.models import cases, checkpoints


@functools.cache
def shapes_and_groups(name):
    case = cases.FULL[name]
    family = FAMILIES[case.class_name]
    config = family.read_config(checkpoints.full_config(case), name)
    return template(family, config), family.groups(config)


def transformers(widths, counts):
    """Parameters of one attention's projections q, k, v, out (with bias), by width."""
    return sum(n * (4 * w * w + w) for w, n in zip(widths, counts, strict=True))


# SD 1.5 has 5 transformers at each of its three attending levels and one in the middle.
SD_WIDTHS, SD_COUNTS = (320, 640, 1280), (5, 5, 6)
SD_KV = sum(n * 2 * 768 * w for w, n in zip(SD_WIDTHS, SD_COUNTS, strict=True))
SD_SELF = transformers(SD_WIDTHS, SD_COUNTS)
SD_CROSS = SD_KV + sum(n * (2 * w * w + w) for w, n in zip(SD_WIDTHS, SD_COUNTS, strict=True))
# 8 w² + 8 w of GEGLU, 4 w² + w back, three norms of 2 w.
SD_REST = sum(n * (12 * w * w + 15 * w) for w, n in zip(SD_WIDTHS, SD_COUNTS, strict=True))
# AudioLDM-s: no transformers at its first level; both attentions look at the map.
ALDM_WIDTHS, ALDM_COUNTS = (256, 384, 640), (5, 5, 6)
ALDM_SELF = 2 * transformers(ALDM_WIDTHS, ALDM_COUNTS)
ALDM_REST = sum(n * (12 * w * w + 15 * w) for w, n in zip(ALDM_WIDTHS, ALDM_COUNTS, strict=True))

EXPECTED = {
    ("sd15", "cross_attention_kv"): SD_KV,
    ("sd15", "cross_attention"): SD_CROSS,
    ("sd15", "self_attention"): SD_SELF,
    ("sd15", "transformer"): SD_CROSS + SD_SELF + SD_REST,
    ("sd15", "all"): 859_520_964,
    ("audioldm_s", "self_attention"): ALDM_SELF,
    ("audioldm_s", "transformer"): ALDM_SELF + ALDM_REST,
    ("audioldm_s", "all"): 185_036_552,
}


@pytest.mark.parametrize(("name", "group"), EXPECTED)
def test_groups_hold_the_parameters_that_arithmetic_gives(name, group):
    shapes, groups = shapes_and_groups(name)
    selected, _ = tree.split(shapes, group_pattern(groups, group))
    assert sum(int(np.prod(s.shape)) for s in selected.values()) == EXPECTED[name, group]


def test_every_group_is_covered_above():
    for name in ("sd15", "audioldm_s"):
        assert {g for n, g in EXPECTED if n == name} == set(shapes_and_groups(name)[1])


@pytest.mark.parametrize("group", ["cross_attention", "cross_attention_kv"])
def test_a_model_without_text_names_the_groups_that_it_has(group):
    _, groups = shapes_and_groups("audioldm_s")
    message = (
        rf"no parameter group '{group}' \(this model has no text cross-attention.*\['all', 'se"
    )
    with pytest.raises(InputError, match=message):
        group_pattern(groups, group)


def test_an_unknown_group_is_refused():
    with pytest.raises(
        InputError, match=r"no parameter group 'attn'; choose one of \['all', 'cross"
    ):
        group_pattern(shapes_and_groups("sd15")[1], "attn")
