"""Rows over devices: any number of them, padded and un-padded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax import devices
from tda_jax.errors import InputError

USED = devices.local_devices(1)


def rows(positions):
    return {"x": positions.astype(np.float32), "y": np.stack([positions, positions + 1], 1)}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_results_are_in_order_and_un_padded(count, batch):
    mapped = devices.row_map(lambda s, r: {"a": s * r["x"], "b": r["y"] * 2}, USED, batch)
    shared = devices.replicate(jnp.float32(3), USED)
    out = devices.results(mapped, shared, rows, count)
    np.testing.assert_array_equal(out["a"], 3.0 * np.arange(count))
    np.testing.assert_array_equal(out["b"], 2 * rows(np.arange(count))["y"])


@pytest.mark.parametrize("count", [1, 5, 8])
@pytest.mark.parametrize("batch", [1, 3])
def test_sums_count_each_good_row_once(count, batch):
    def one(shared, row):
        bad = row["x"] == 2
        return {"s": jnp.where(bad, jnp.nan, row["x"])}, ~bad, row["x"]

    mapped = devices.row_sum(one, USED, batch)
    total = devices.zeros({"s": np.float32(0)}, USED)
    shared = devices.replicate(jnp.float32(1), USED)
    total, info = devices.add_rows(mapped, total, shared, rows, count)
    total, _ = devices.add_rows(mapped, total, shared, rows, count)
    np.testing.assert_array_equal(info, np.arange(count))
    kept = [i for i in range(count) if i != 2]
    assert devices.over_devices(total)["s"] == 2 * sum(kept)


def test_products_are_in_float32_whatever_the_default():
    with jax.default_matmul_precision("bfloat16"):
        mapped = devices.row_map(lambda s, r: jnp.dot(s, s), USED, 1)
        shared = devices.replicate(jnp.ones(3, jnp.float32), USED)
        text = mapped.step.lower(shared, {"x": np.ones((1, 1), np.float32)}).as_text()
    assert "HIGHEST" in text
    assert "DEFAULT" not in text


def test_a_replica_on_the_only_device_is_no_copy():
    x = jnp.ones(1000)
    assert devices.replicate(x, USED).unsafe_buffer_pointer() == x.unsafe_buffer_pointer()


@pytest.mark.parametrize("count", [0, 1000])
def test_devices_that_are_not_there_are_refused(count):
    with pytest.raises(InputError, match=f"{count} devices"):
        devices.local_devices(count)


def test_a_batch_below_one_is_refused():
    with pytest.raises(InputError, match="batch = 0"):
        devices.row_map(lambda s, r: r, USED, 0)
