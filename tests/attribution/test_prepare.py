"""The queries' gradients as artifacts, and what unlearning sees."""

import jax
import numpy as np
import pytest

from tda_jax import devices
from tda_jax.attribution import prepare, unlearn
from tda_jax.attribution.contract import split_group
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.errors import InputError
from tests.attribution import tiny
from tests.attribution.test_information import poisoned

SETTINGS = Settings(100, "attention", fisher_draws=3, query_draws=16, blocks=4)
COMPUTE = Compute(devices.local_devices(1), 4, 4, 2, chunk=2)
SOURCE = {"of": "a test"}


@pytest.mark.parametrize(
    ("kind", "message"), [("nan", "is not finite"), ("zero", "zero throughout")]
)
def test_an_unusable_query_is_named(kind, message):
    query = tiny.corpus(1, dtype=np.float32)
    model = poisoned(query.examples.condition[0, 0, 0], kind)
    made = unlearn.make_gradient(model, 16, 4, 0, 4, COMPUTE.devices)
    moved, rest = split_group(model, "attention")
    placed, nothing = unlearn.place(made, moved, rest), prepare.no_step(moved)
    with pytest.raises(unlearn.UnusableQuery, match=f"query 'track 0'.*{message}"):
        unlearn.query_gradient(made, placed, nothing, tiny.row(query, 0), "track 0")


def test_a_part_of_a_query_is_masked_with_and_without_the_padding():
    query = tiny.corpus(1, dtype=np.float32)
    mask = query.examples.mask.copy()
    mask[0, :2] = 0
    part = query._replace(
        examples=query.examples._replace(mask=mask), metadata=({"query_frames": [2, 6]},)
    )
    masked = prepare.unlearning_examples(part, SETTINGS)
    assert masked.mask[0].tolist() == [0, 0, 1, 1, 0, 0]
    whole = prepare.unlearning_examples(part, SETTINGS._replace(mask_unlearn=False))
    assert whole.mask[0].tolist() == [0, 0, 1, 1, 1, 1]


def test_blocks_are_independent_draws_and_their_mean_is_the_gradient():
    model = tiny.model(dtype=np.float32)
    moved, rest = split_group(model, "attention")
    query = tiny.corpus(1, dtype=np.float32)
    made = unlearn.make_gradient(model, 16, 4, 0, 4, COMPUTE.devices)
    got = unlearn.query_gradient(
        made,
        unlearn.place(made, moved, rest),
        prepare.no_step(moved),
        tiny.row(query, 0),
        "track 0",
    )
    for leaf in got.blocks.values():
        distances = [np.abs(leaf[i] - leaf[j]).max() for i in range(4) for j in range(i)]
        assert min(distances) > 0


def test_names_of_files_are_readable_and_differ_where_ids_do():
    names = [prepare.slug(i) for i in ("a/b", "a b", "a_b", "../x", "é")]
    assert len(set(names)) == 5
    assert all(name.replace("-", "").replace("_", "").isalnum() for name in names)


def test_preconditioning_is_exact():
    g = {"a": np.array([1.0, -2.0]), "b": np.array([[4.0]])}
    f = {"a": np.array([1.0, 3.0]), "b": np.array([[8.0]])}
    got = unlearn.preconditioned(g, f, 0.5, 10)  # the mean of F is 4, so λ = 2
    np.testing.assert_allclose(got["a"], [1 / 3 / 10, -2 / 5 / 10])
    np.testing.assert_allclose(got["b"], [[4 / 10 / 10]])
    with pytest.raises(InputError, match="differ in"):
        unlearn.preconditioned({"a": g["a"]}, f, 0.5, 10)
    with pytest.raises(InputError, match="damping = 0"):
        unlearn.preconditioned(g, f, 0.0, 10)
    with pytest.raises(InputError, match="mean 0"):
        unlearn.preconditioned(g, jax.tree.map(np.zeros_like, f), 0.5, 10)
