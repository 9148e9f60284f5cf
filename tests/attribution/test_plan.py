"""What a run is said to take, before it starts."""

import numpy as np
import pytest

from tda_jax import devices, examples, keys
from tda_jax.attribution import fisher, linearised, memory, plan, sweep
from tda_jax.attribution.contract import split_group
from tda_jax.attribution.settings import Compute, Settings
from tests.attribution import tiny

SETTINGS = Settings(100, "attention", fisher_draws=3, query_draws=32, blocks=4, strata=10)
COMPUTE = Compute(devices.local_devices(1), 8, 4, queries_per_pass=2, chunk=4)
MODEL = tiny.model(dtype=np.float32)
CORPUS = tiny.corpus(7, dtype=np.float32)._replace(members=np.arange(7) < 5)
QUERIES = tiny.corpus(3, dtype=np.float32, prefix="query")
GROUP = sum(x.nbytes for x in split_group(MODEL, "attention")[0].values())


def stages(**changes):
    return plan.plan(MODEL, CORPUS, QUERIES, SETTINGS._replace(**changes), COMPUTE)


def test_pairs_are_counted():
    linear = {name: stage.pairs for name, stage in stages().items()}
    assert linear == {
        "Fisher information": 5 * 3,  # members alone
        "query gradients": 3 * 32,
        "query calibration": 3 * 40,
        "linearised sweep": 2 * 7 * 40,  # two passes of two queries
    }
    exact = {name: s.pairs for name, s in stages(method="exact", steps=3, fisher_tracks=2).items()}
    assert exact == {
        "Fisher information": 2 * 3,
        "query gradients": 3 * 32 * 3,
        "query calibration": 3 * 40,
        "losses before": 7 * 40,
        "losses after unlearning": 3 * 7 * 40,
    }


def test_units_of_members_are_counted_and_their_weights_have_a_place():
    starts = [("a", 0.0), ("b", 0.0), ("a", 1.0), ("c", 0.0), ("a", 2.0), ("d", 0.0), ("d", 1.0)]
    found = [{"track": track, "window_start": start} for track, start in starts]
    units = CORPUS._replace(metadata=tuple(found))

    def stage(**changes):
        settings = SETTINGS._replace(**changes)
        return plan.plan(MODEL, units, QUERIES, settings, COMPUTE)["Fisher information"]

    assert stage().pairs == 5 * 3
    for seed in range(3):
        (track,) = keys.subset(["a", "b", "c"], 1, seed)
        assert stage(fisher_tracks=1, seed=seed).pairs == (9 if track == "a" else 3)
    moved, rest = split_group(MODEL, "attention")
    made = fisher.make_fisher(MODEL, 3, 0, 4, COMPUTE.devices)
    placed = fisher.place(made, moved, rest)
    wanted = memory.of_fisher(made, placed, moved, CORPUS.examples, weighed=True)
    plain = memory.of_fisher(made, placed, moved, CORPUS.examples)
    assert wanted.arguments == plain.arguments + 4 * made.layout.rows
    assert stage().bytes == wanted.peak


def test_shapes_alone_give_the_memory_of_the_real_programs():
    moved, rest = split_group(MODEL, "attention")
    made = fisher.make_fisher(MODEL, 3, 0, 4, COMPUTE.devices)
    wanted = memory.of_fisher(made, fisher.place(made, moved, rest), moved, CORPUS.examples)
    assert stages()["Fisher information"].bytes == wanted.peak > GROUP
    made = linearised.make_linearised(MODEL, SETTINGS.draws, 0, 1, COMPUTE.devices)
    placed = linearised.place(made, moved, rest)
    wanted = memory.of_linearised(made, placed, moved, 2, 4, CORPUS.examples)
    assert stages()["linearised sweep"].bytes == wanted.peak > 8 * GROUP


@pytest.mark.parametrize("frames", [False, True])
def test_each_further_query_of_an_exact_pass_adds_a_step(frames):
    moved, rest = split_group(MODEL, "attention")
    made = sweep.make_sweep(MODEL, SETTINGS.draws, 0, 8, COMPUTE.devices, frames=frames)
    one = memory.of_sweep(made, sweep.place(made, moved, rest), moved, CORPUS.examples).peak
    found = stages(method="exact", frames=frames)["losses after unlearning"].bytes
    assert found == one + GROUP


def test_half_precision_takes_less():
    def terms(params, example, t, noise):
        dtype = params["output"]["bias"].dtype
        return tiny.terms(params, examples.in_dtype(example, dtype), t, noise.astype(dtype))

    def size(dtype):
        settings, model = SETTINGS._replace(dtype=dtype), MODEL._replace(terms=terms)
        made = plan.plan(model, CORPUS, QUERIES, settings, COMPUTE)
        return made["linearised sweep"].bytes

    assert size("bfloat16") < size("float32")
