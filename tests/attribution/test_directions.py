"""A query's own response to its direction, against a plain loop on draws of its own domain."""

import jax
import numpy as np
import pytest

from tda_jax import devices, examples, keys
from tda_jax.attribution import contract, directions, linearised
from tda_jax.attribution.settings import Settings
from tests.attribution import tiny

SETTINGS = Settings(50, "attention", query_draws=16, blocks=4, replicates=4, strata=10, seed=3)
QUERY = examples.take(tiny.corpus(2), [0])  # with padding


def unit_blocks(moved):
    rng = np.random.default_rng(0)
    return {p: 0.1 * rng.standard_normal((4, *x.shape)) for p, x in moved.items()}


def with_step(step):
    params = tiny.params(0)
    inner = {name: x + step[f"attention/{name}"] for name, x in params["attention"].items()}
    return params | {"attention": inner}


def loop_loss(step, masked):
    """The mean loss of the query over the draws of its calibration, by the NumPy network."""
    example = tiny.row(QUERY, 0)
    if not masked:
        example = example._replace(mask=np.ones_like(example.mask))
    drawn = [
        tiny.draw(SETTINGS.seed, keys.Domain.CALIBRATION, QUERY.ids[0], d, SETTINGS.strata)
        for d in range(SETTINGS.draws.count)
    ]
    params = with_step(step)
    return np.mean([tiny.loss_plainly(params, example, t, noise) for t, noise in drawn])


@pytest.mark.parametrize("masked", [True, False])
def test_the_response_is_that_of_the_query_on_draws_of_its_own(tmp_path, masked):
    settings = SETTINGS._replace(dtype="float64", mask_unlearn=masked)
    with jax.enable_x64(True):
        model = tiny.model()
        moved, rest = contract.split_group(model, "attention")
        made = directions.calibration_pass(model, settings, 8, devices.local_devices(1))
        blocks = unit_blocks(moved)
        placed = linearised.place(made, moved, rest)
        path = tmp_path / "calibration.safetensors"
        found = directions.calibrate(made, placed, blocks, QUERY, settings, path, {"of": "a test"})
    u = {p: x.mean(0) for p, x in blocks.items()}

    def at(rate):
        return loop_loss({p: rate * x for p, x in u.items()}, masked)

    h = 1e-3
    assert found.loss == pytest.approx(at(0.0), rel=1e-10)
    assert found.a == pytest.approx((at(h) - at(-h)) / (2 * h), rel=1e-5)
    # `b` is along the step as taken: the mean of the products of all pairs of blocks, and so above
    # the unbiased one by the noise in the direction.
    singles = [{p: x[k] for p, x in blocks.items()} for k in range(4)]
    assert found.b != pytest.approx(found.b_unbiased, rel=1e-3)
    with jax.enable_x64(True):
        own = [
            directions.calibrate(
                made,
                placed,
                {p: np.stack([x] * 4) for p, x in one.items()},
                QUERY,
                settings,
                tmp_path / f"{k}.safetensors",
                {"of": "a test"},
            ).b
            for k, one in enumerate(singles)
        ]
    # Σ_jk over all pairs = B² b, of which the B own ones are |J u_j|².
    assert 16 * found.b - sum(own) == pytest.approx(12 * found.b_unbiased, rel=1e-9)


def test_the_rate_is_of_the_response_along_the_step_as_taken():
    own = directions.Calibration(loss=2.0, a=0.3, b=0.5, b_unbiased=0.1)
    rate = directions.rate_of(own, SETTINGS._replace(rise=0.1))
    assert rate * own.a + rate**2 * own.b == pytest.approx(0.2)
    assert directions.rate_of(own, SETTINGS._replace(rate=-0.5)) == -0.5
