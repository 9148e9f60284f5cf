"""What is told of rows against plain loops."""

import math

import ml_dtypes
import numpy as np
import pytest

from tda_jax import facts, fingerprint


def rows(n=9, dtype=np.float32):
    rng = np.random.default_rng(n)
    latent = (1 + 2 * rng.standard_normal((n, 5, 3, 2))).astype(dtype)
    mask = rng.choice([0.0, 0.25, 1.0], (n, 5)).astype(np.float32)
    mask[:, 0] = 1
    return latent, mask


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_moments_and_levels_are_those_of_plain_loops(dtype):
    latent, mask = rows(dtype=dtype)
    moments, levels = facts.moments_and_levels(latent, mask)
    for x, m, (count, total, squares), (frames, level) in zip(
        latent, mask, moments, levels, strict=True
    ):
        valid = [float(v) for frame, w in zip(x, m, strict=True) if w > 0 for v in frame.flat]
        assert count == len(valid)
        assert total == pytest.approx(math.fsum(valid), rel=1e-12)
        assert squares == pytest.approx(math.fsum(v * v for v in valid), rel=1e-12)
        power = [np.mean([float(v) ** 2 for v in frame.flat]) for frame in x]
        assert frames == pytest.approx(math.fsum(map(float, m)))
        weighed = math.fsum(float(w) * p for w, p in zip(m, power, strict=True))
        assert level == pytest.approx(math.sqrt(weighed / frames), rel=1e-12)


def test_no_row_depends_on_its_block():
    latent, mask = rows(9)
    whole = facts.moments_and_levels(latent, mask)
    for i in range(9):
        for found, wanted in zip(
            facts.moments_and_levels(latent[i : i + 1], mask[i : i + 1]), whole, strict=True
        ):
            np.testing.assert_array_equal(found[0], wanted[i])


def test_a_print_is_of_id_side_and_arrays():
    latent, mask = rows(2)
    (one, other) = facts.prints(["a", "b"], np.array([True, False]), facts.digests([latent, mask]))
    wanted = [fingerprint.of_array(latent[0]), fingerprint.of_array(mask[0])]
    assert one == fingerprint.of_text("a", "True", *wanted)
    assert other != one


def test_faults_are_found_by_row_and_array():
    latent, mask = rows(4)
    latent[1, 0, 0, 0], mask[2], mask[3, 1] = np.nan, 0, 1.5
    found = facts.faults(mask, [latent, mask, np.arange(4)])
    assert found.astype(int).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
    ]
