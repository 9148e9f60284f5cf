import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax.diffusion.losses import denoising_terms, masked_mse, per_example_loss
from tda_jax.diffusion.schedules import schedule_from_config
from tda_jax.errors import InputError

H, W, C = 5, 3, 2
EPS = schedule_from_config({"beta_schedule": "scaled_linear"}, "here")
V = schedule_from_config({"prediction_type": "v_prediction"}, "here")


def draw(seed, dtype=jnp.float32, shape=(H, W, C)):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def predict(params, x_t, t, condition):
    return jnp.tanh(params["w"] * x_t) + condition + t.astype(x_t.dtype) / 1000


def plain_mean(prediction, target, mask):
    total, count = 0.0, 0.0
    for h, w, c in itertools.product(range(H), range(W), range(C)):
        weight = float(mask[h])
        total += weight * (float(prediction[h, w, c]) - float(target[h, w, c])) ** 2
        count += weight
    return total / count


@pytest.mark.parametrize("mask", [[1, 1, 1, 1, 1], [1, 1, 0, 1, 0], [0, 0, 0, 0, 1]])
@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32])
def test_masked_mse_is_a_plain_loop(mask, dtype):
    prediction, target = draw(0), draw(1)
    loss = masked_mse(prediction, target, jnp.asarray(mask, dtype))
    assert loss.dtype == jnp.float32
    assert float(loss) == pytest.approx(plain_mean(prediction, target, mask), rel=1e-6)


def test_a_float_mask_weighs():
    prediction, target, mask = draw(0), draw(1), jnp.array([1.0, 0.5, 0.0, 0.25, 1.0])
    assert float(masked_mse(prediction, target, mask)) == pytest.approx(
        plain_mean(prediction, target, mask), rel=1e-6
    )


def test_no_mask_is_a_mask_of_ones():
    prediction, target = draw(0), draw(1)
    whole = float(masked_mse(prediction, target))
    assert whole == pytest.approx(plain_mean(prediction, target, [1] * H), rel=1e-6)


def test_masks_with_all_axes():
    prediction, target = draw(0), draw(1)
    frames = jnp.array([1, 0, 1, 1, 0])
    expected = float(masked_mse(prediction, target, frames))
    for shape in [(H, 1, 1), (H, W, 1), (H, W, C)]:
        mask = jnp.broadcast_to(frames.reshape(H, 1, 1), shape)
        assert float(masked_mse(prediction, target, mask)) == pytest.approx(expected, rel=1e-6)
    bins = jnp.array([1, 0, 0]).reshape(1, W, 1)
    kept = np.asarray(prediction)[:, 0] - np.asarray(target)[:, 0]
    assert float(masked_mse(prediction, target, bins)) == pytest.approx(np.mean(kept**2), rel=1e-6)


def test_masked_frames_do_not_count():
    prediction, target, mask = draw(0), draw(1), jnp.array([1, 1, 1, 0, 0])
    changed = prediction.at[3:].set(1e3)
    assert float(masked_mse(prediction, target, mask)) == float(masked_mse(changed, target, mask))


def test_a_mask_that_keeps_nothing_is_nan():
    assert np.isnan(jax.jit(masked_mse)(draw(0), draw(1), jnp.zeros(H)))


@pytest.mark.parametrize("shape", [(H + 1,), (1, H), (H, W), (H, W, C + 1), ()])
def test_a_mask_that_does_not_fit_is_refused(shape):
    with pytest.raises(InputError, match=r"mask's shape .* does not fit .* \(5, 3, 2\)"):
        masked_mse(draw(0), draw(1), jnp.ones(shape))


def test_half_precision_is_summed_in_float32():
    shape = (4096, 1, 1)  # a bfloat16 sum of ones stops at 256
    prediction, target = jnp.full(shape, 1.0, jnp.bfloat16), jnp.zeros(shape, jnp.bfloat16)
    for mask in (None, jnp.ones(4096, jnp.bfloat16)):
        loss = masked_mse(prediction, target, mask)
        assert loss.dtype == jnp.float32
        assert float(loss) == 1.0
    # (1 + 2^-7)^2 has more bits than bfloat16 holds.
    assert float(masked_mse(prediction + 0.0078125, target)) == 1.0078125**2


def test_float64_stays():
    with jax.enable_x64(True):
        prediction, target = draw(0, jnp.float64), draw(1, jnp.float64)
        loss = masked_mse(prediction, target, jnp.ones(H))
        assert loss.dtype == jnp.float64
        assert float(loss) == pytest.approx(plain_mean(prediction, target, [1] * H), rel=1e-14)
        whole = per_example_loss(predict, EPS)
        params = {"w": jnp.asarray(0.7)}
        value = whole(params, prediction, jnp.asarray(0.1), jnp.asarray(9), target)
        assert value.dtype == jnp.float64


def plain_loss(schedule, w, x0, condition, t, noise, mask):
    alpha, sigma = schedule.alpha[t], schedule.sigma[t]
    x0, noise = np.asarray(x0, np.float64), np.asarray(noise, np.float64)
    output = np.tanh(w * (alpha * x0 + sigma * noise)) + condition + t / 1000
    wanted = noise if schedule is EPS else alpha * noise - sigma * x0
    return plain_mean(output, wanted, mask)


@pytest.mark.parametrize("schedule", [EPS, V], ids=["epsilon", "v"])
@pytest.mark.parametrize("mask", [None, [1, 1, 0, 0, 0]])
def test_the_loss_is_a_plain_float64_computation(schedule, mask):
    loss = jax.jit(per_example_loss(predict, schedule))
    mask_array = None if mask is None else jnp.asarray(mask)
    for t in (0, 300, 999):
        params = {"w": jnp.float32(0.7)}
        value = loss(params, draw(0), jnp.float32(0.1), jnp.int32(t), draw(1), mask_array)
        expected = plain_loss(schedule, 0.7, draw(0), 0.1, t, draw(1), mask or [1] * H)
        assert value.shape == ()
        assert float(value) == pytest.approx(expected, rel=1e-5)


def test_the_terms_are_what_the_network_saw_and_should_say():
    seen = []

    def look(x_t, t):
        seen.append((x_t, t))
        return x_t

    output, wanted = denoising_terms(look, EPS, draw(0), jnp.int32(500), draw(1))
    (x_t, t), alpha, sigma = seen[0], EPS.alpha[500], EPS.sigma[500]
    assert int(t) == 500
    np.testing.assert_allclose(x_t, alpha * np.array(draw(0)) + sigma * np.array(draw(1)), 1e-5)
    np.testing.assert_array_equal(output, x_t)
    np.testing.assert_array_equal(wanted, draw(1))


def test_a_loss_does_not_know_its_batch():
    loss = per_example_loss(predict, V)
    params, x0, noise = {"w": jnp.float32(0.7)}, draw(0, shape=(6, H, W, C)), draw(1)
    conditions, times = jnp.linspace(0.0, 1.0, 6), jnp.arange(6) * 150
    masks = (jnp.arange(H)[None, :] <= jnp.arange(6)[:, None]).astype(jnp.float32)
    batch = jax.vmap(loss, in_axes=(None, 0, 0, 0, None, 0))
    together = batch(params, x0, conditions, times, noise, masks)
    for i in range(6):
        alone = loss(params, x0[i], conditions[i], times[i], noise, masks[i])
        np.testing.assert_allclose(together[i], alone, rtol=1e-6)


def test_gradients_per_example_are_those_of_a_loop():
    loss = per_example_loss(predict, V)
    params, x0 = {"w": jnp.float32(0.7)}, draw(0, shape=(3, H, W, C))
    arguments = (jnp.float32(0.1), jnp.int32(200), draw(1))
    gradient = jax.grad(loss)
    together = jax.vmap(lambda x: gradient(params, x, *arguments)["w"])(x0)
    for i in range(3):
        up = plain_loss(V, 0.701, x0[i], 0.1, 200, draw(1), [1] * H)
        down = plain_loss(V, 0.699, x0[i], 0.1, 200, draw(1), [1] * H)
        assert float(together[i]) == pytest.approx((up - down) / 0.002, rel=1e-4)


def test_predictions_of_another_shape_are_refused():
    # The runtime type checks of the tests would refuse them first.
    unchecked = inspect.unwrap(masked_mse)
    with pytest.raises(InputError, match=r"\(1, 5, 3, 2\) and \(5, 3, 2\)"):
        unchecked(draw(0)[None], draw(1))
