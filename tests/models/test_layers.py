"""Layers against plain float64 arithmetic, and what a UNet refuses."""

import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from tda_jax.models import layers, transformer
from tda_jax.models.denoiser import Condition, predict_fn
from tda_jax.models.families import FAMILIES, initialise
from tda_jax.models.unet import UNet2DConditionModel
from tda_jax.models.unet_config import unet_config
from tests.models import cases


@pytest.mark.parametrize(
    ("flip", "shift", "dim"), [(True, 0.0, 8), (False, 1.0, 8), (True, 0.0, 7)]
)
def test_timestep_embedding_is_the_formula(flip, shift, dim):
    t = np.array([0, 1, 37, 999])
    half = dim // 2
    expected = np.zeros((len(t), dim))
    for row, step in enumerate(t):
        for i in range(half):
            angle = step * math.exp(-math.log(10000) * i / (half - shift))
            expected[row, i + (half if flip else 0)] = math.sin(angle)
            expected[row, i + (0 if flip else half)] = math.cos(angle)
    got = layers.timestep_embedding(jnp.asarray(t), dim, flip_sin_to_cos=flip, freq_shift=shift)
    # One float32 rounding of a frequency is 6e-5 rad at t = 999.
    np.testing.assert_allclose(got, expected, atol=1.2e-4)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.integers(1, 20))
@settings(deadline=None, max_examples=30)
def test_upsampling_takes_element_floor_i_in_over_out(h, w, height, width):
    x = np.arange(h * w, dtype=np.float32).reshape(1, h, w, 1)
    got = layers.upsample_nearest(jnp.asarray(x), height, width)
    for i in range(height):
        for j in range(width):
            assert got[0, i, j, 0] == x[0, i * h // height, j * w // width, 0]


def test_attention_is_the_formula_in_float64():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, n, 3, 4)) for n in (5, 6, 6))
    bias = np.where(rng.random((2, 6)) < 0.5, 0.0, -1e4)
    expected = np.zeros((2, 5, 3, 4))
    for b in range(2):
        for h in range(3):
            logits = q[b, :, h] @ k[b, :, h].T / 2.0 + bias[b]
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            expected[b, :, h] = weights / weights.sum(-1, keepdims=True) @ v[b, :, h]
    with jax.enable_x64(True):
        got = transformer.attend(*(jnp.asarray(x) for x in (q, k, v, bias)))
        assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_large_attention_does_one_head_after_the_other_and_gives_the_same():
    rng = np.random.default_rng(0)
    shape = (2, 520, 2, 4)
    assert shape[1] ** 2 > transformer._LARGE
    q, k, v = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in range(3))
    bias = jnp.asarray(np.where(rng.random(shape[:2]) < 0.5, 0.0, -1e4), jnp.float32)

    def total(q, k, v):
        return jnp.sin(transformer.attend(q, k, v, bias)).sum()

    def parts(q, k, v):  # queries in parts small enough for the other path
        rows = [transformer.attend(q[:, i : i + 130], k, v, bias) for i in range(0, 520, 130)]
        return jnp.sin(jnp.concatenate(rows, 1)).sum()

    program = str(jax.make_jaxpr(total)(q, k, v))
    assert ("scan" in program) == (jax.default_backend() == "cpu")
    assert "scan" not in str(jax.make_jaxpr(parts)(q, k, v))
    ours, expected = (jax.jit(jax.value_and_grad(f, (0, 1, 2)))(q, k, v) for f in (total, parts))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, expected
    )
    ours, expected = (jax.jvp(f, (q, k, v), (k, v, q))[1] for f in (total, parts))
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
@pytest.mark.slow
def test_the_convolution_of_a_doubled_map_is_what_it_says(h, w, channels, seed):
    # Small integers: every product and sum is exact in float32, so the two must be equal.
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.integers(-4, 5, (2, h, w, channels)), jnp.float32)
    kernel = jnp.asarray(rng.integers(-4, 5, (3, 3, channels, 2)), jnp.float32)
    doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    padded = jnp.pad(doubled, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(
        jnp.einsum("bhwc,cf->bhwf", padded[:, i : i + 2 * h, j : j + 2 * w], kernel[i, j])
        for i in range(3)
        for j in range(3)
    )
    np.testing.assert_array_equal(layers.conv_of_doubled(x, kernel), expected)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_group_norm_is_the_formula_in_float64(offset):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2, 5, 3, 12)) + offset).astype(np.float32)
    scale, bias = (rng.standard_normal(12).astype(np.float32) for _ in range(2))
    grouped = np.float64(x).reshape(2, 15, 4, 3)
    mean = grouped.mean((1, 3), keepdims=True)
    variance = ((grouped - mean) ** 2).mean((1, 3), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + 1e-3)).reshape(x.shape) * scale + bias
    params = {"params": {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}}
    got = layers.GroupNorm(4, 1e-3).apply(params, jnp.asarray(x))
    # Far from zero, float32 keeps only the digits of x that are left beside the offset.
    np.testing.assert_allclose(got, expected, atol=2e-6 if offset == 0.0 else 2e-4)


def test_the_transformers_norm_has_an_epsilon_of_its_own():
    # 1e-6, not the resnets' 1e-5: at a variance of 1e-5 the two differ by 35 percent.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4, 3, 8)).astype(np.float32)
    x = np.float32(1e-5**0.5) * (x - x.mean()) / x.std()
    module = transformer.Transformer2D(heads=2, depth=0, groups=1, linear_projection=True)
    identity = {"kernel": jnp.eye(8), "bias": jnp.zeros(8)}
    norm = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    params = {"norm": norm, "proj_in": identity, "proj_out": identity}
    got = module.apply({"params": params}, jnp.asarray(x), None, None)
    np.testing.assert_allclose(got, x + x / np.sqrt(1e-5 + 1e-6), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_single_and_half_precision_may_meet():
    module, params = small("audioldm_odd")
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    x, label = jnp.ones((13, 5, 4)), Condition(jnp.ones(24))
    with jax.numpy_dtype_promotion("standard"):
        for given in (x, x.astype(jnp.bfloat16)):
            assert jax.eval_shape(predict_fn(module), half, given, 3, label).shape == x.shape


def test_no_examples_give_no_predictions():
    module, params = small("audioldm_odd")
    empty = jnp.zeros((0, 13, 5, 4)), jnp.zeros(0, jnp.int32), jnp.zeros((0, 24))
    assert jax.jit(module.apply)({"params": params}, *empty).shape == (0, 13, 5, 4)


def test_a_timestep_that_is_no_integer_is_refused():
    module, params = small("audioldm_odd")
    with pytest.raises(TypeError, match=r"timestep 3\.9 is no integer"):
        predict_fn(module)(params, jnp.ones((13, 5, 4)), 3.9, Condition(jnp.ones(24)))


def test_attention_normalises_half_precision_in_float32():
    # 300 equal keys: weights of 1/300 summed in bfloat16 would be off by several percent.
    q = jnp.zeros((1, 1, 1, 8), jnp.bfloat16)
    k = jnp.zeros((1, 300, 1, 8), jnp.bfloat16)
    v = jnp.ones((1, 300, 1, 8), jnp.bfloat16)
    np.testing.assert_allclose(np.float32(transformer.attend(q, k, v, None)), 1.0, rtol=4e-3)


@functools.cache
def small(name):
    config, family = unet_config(cases.SMALL[name].config), FAMILIES["UNet2DConditionModel"]
    return family.build(config), initialise(family, config, 0)


def test_masked_tokens_change_nothing():
    module, params = small("sd")
    predict = jax.jit(predict_fn(module))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((8, 8, 4)), jnp.float32)
    text = rng.standard_normal((5, 20)).astype(np.float32)
    mask = jnp.arange(5) < 3
    other = np.where(np.asarray(mask)[:, None], text, 9.0).astype(np.float32)
    got = [predict(params, x, 3, Condition(None, jnp.asarray(t), mask)) for t in (text, other)]
    np.testing.assert_array_equal(got[0], got[1])
    unmasked = predict(params, x, 3, Condition(None, jnp.asarray(other), None))
    assert np.abs(unmasked - got[0]).max() > 1e-4


def test_a_prediction_does_not_depend_on_its_batch():
    module, params = small("audioldm_odd")
    predict = predict_fn(module)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((3, 13, 5, 4)), jnp.float32)
    t = jnp.array([0, 500, 999])
    condition = Condition(jnp.asarray(rng.standard_normal((3, 24)), jnp.float32))
    batched = jax.jit(jax.vmap(predict, (None, 0, 0, 0)))(params, x, t, condition)
    one = jax.jit(predict)
    for i in range(3):
        alone = one(params, x[i], t[i], Condition(condition.embedding[i]))
        np.testing.assert_allclose(batched[i], alone, rtol=0, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize("name", ["sd", pytest.param("audioldm_odd", marks=pytest.mark.slow)])
def test_half_precision_in_is_half_precision_out(name):
    module, params = small(name)
    predict = jax.jit(predict_fn(module))
    rng = np.random.default_rng(0)
    case = cases.SMALL[name]
    x = jnp.asarray(rng.standard_normal((*case.size, 4)), jnp.float32)
    text = jnp.asarray(rng.standard_normal((5, 20)), jnp.float32)
    label = jnp.asarray(rng.standard_normal(24), jnp.float32)
    condition = Condition(None, text) if case.tokens else Condition(label)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (params, x, condition))
    got = predict(half[0], half[1], 3, half[2])
    assert got.dtype == jnp.bfloat16
    expected = predict(params, x, 3, condition)
    error = np.linalg.norm(np.float32(got) - expected) / np.linalg.norm(expected)
    assert error < 0.03  # some tens of layers, each rounding by 2⁻⁹


def test_text_projections_are_computed_once_for_all_draws():
    module, params = small("sd")
    over_draws = jax.vmap(predict_fn(module), (None, 0, 0, None))
    draws, tokens, dim = 7, 5, 20
    program = jax.make_jaxpr(over_draws)(
        params,
        jnp.ones((draws, 8, 8, 4)),
        jnp.arange(draws),
        Condition(None, jnp.ones((tokens, dim))),
    )
    rows = [
        math.prod(e.invars[0].aval.shape[:-1])
        for e in _equations(program.jaxpr)
        if e.primitive.name == "dot_general"
        and e.invars[0].aval.shape[-1] == dim
        and e.invars[1].aval.ndim == 2
    ]
    assert len(rows) == 2 * 11  # key and value of every transformer
    assert set(rows) == {tokens}


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)


def test_an_additive_mask_is_refused():
    module, _ = small("sd")
    mask = jnp.where(jnp.arange(5) < 3, 0.0, -1e4)
    # Without the types that the tests check; a user's call has none.
    check = inspect.unwrap(UNet2DConditionModel._check_conditions)
    with pytest.raises(ValueError, match="encoder_attention_mask is float32; give booleans"):
        check(module, None, jnp.ones((1, 5, 20)), mask[None])


def test_conditions_that_do_not_fit_are_refused():
    text, params = small("sd")
    x, t = jnp.ones((8, 8, 4)), 3
    label = Condition(jnp.ones(24))
    with pytest.raises(ValueError, match="cannot take class_labels"):
        predict_fn(text)(params, x, t, label)
    with pytest.raises(ValueError, match="needs encoder_hidden_states"):
        predict_fn(text)(params, x, t, Condition())
    audio, params = small("audioldm")
    with pytest.raises(ValueError, match="needs class_labels"):
        predict_fn(audio)(params, jnp.ones((12, 4, 8)), t, Condition())
