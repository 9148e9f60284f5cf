"""What holds for every method of attribution, whatever it computes."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tda_jax import examples
from tda_jax.baselines import likenesses, similarity
from tda_jax.errors import InputError
from tests.baselines import methods

ROOT = Path(__file__).parent.parent.parent
NAMES = list(methods.METHODS)
COMPILED = []


@pytest.fixture(scope="module", autouse=True)
def _counted():
    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            COMPILED.append(duration)

    jax.monitoring.register_event_duration_secs_listener(count)
    yield
    jax.monitoring.unregister_event_duration_listener(count)


@pytest.fixture(scope="module")
def usual():
    """Scores as they are, of each method once: (prepared, scores)."""
    made, task = {}, methods.task()

    def get(name):
        if name not in made:
            prepared = methods.METHODS[name].prepare(task)
            found = methods.METHODS[name].score(task, prepared, methods.queries())
            made[name] = prepared, found
        return made[name]

    return get


def assert_same(got, wanted, tolerance=2e-5):
    """To rounding, as a share of the spread of a query's scores over the tracks."""
    assert got.keys() == wanted.keys()
    for variant, x in wanted.items():
        spread = np.ptp(x, axis=1, keepdims=True)
        assert (spread > 0).all(), variant  # there is something to compare
        assert (np.abs(got[variant] - x) <= tolerance * spread).all(), variant


@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_values(usual, name):
    _, found = usual(name)
    assert found
    for variant, x in found.items():
        assert x.shape == (methods.QUERIES, methods.TRACKS), variant
        assert x.dtype == np.float64
        assert np.isfinite(x).all()
        if name != methods.SMALL:  # which knows groups alone, and no query
            assert len(np.unique(x)) == x.size  # no two pairs by accident alike


@pytest.mark.parametrize("name", NAMES)
def test_tables_call_it_by_its_name(name):
    assert methods.METHODS[name].name == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 64])
def test_batch_size(usual, name, batch):
    assert_same(methods.scores(name, methods.task(batch)), usual(name)[1])


@pytest.mark.parametrize("name", NAMES)
def test_corpus_order(usual, name):
    order = np.random.default_rng(0).permutation(methods.TRACKS)
    shuffled = examples.take(methods.corpus(), order)
    found = methods.scores(name, methods.task(given=shuffled))
    back = {variant: x[:, np.argsort(order)] for variant, x in found.items()}
    assert_same(back, usual(name)[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_query_alone_and_among_others_without_compiling_again(usual, name):
    prepared, wanted = usual(name)
    task, queries, method = methods.task(), methods.queries(), methods.METHODS[name]
    first = method.score(task, prepared, examples.take(queries, [2]))
    before = len(COMPILED)
    second = method.score(task, prepared, examples.take(queries, [0]))
    assert len(COMPILED) == before
    for row, alone in ((2, first), (0, second)):
        assert_same(alone, {v: x[[row]] for v, x in wanted.items()})


@pytest.fixture(scope="module")
def on_eight_devices(tmp_path_factory):
    """The scores of every method in a process with 8 devices, at batch 3."""
    out = tmp_path_factory.mktemp("eight") / "out.npz"
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.baselines.methods", str(out), "3"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | flags, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(out))


@pytest.mark.slow  # each program is compiled once more, for eight devices
@pytest.mark.parametrize("name", NAMES)
def test_device_count(usual, on_eight_devices, name):
    assert on_eight_devices["devices"] == 8
    wanted = usual(name)[1]
    assert_same({v: on_eight_devices[f"{name}|{v}"] for v in wanted}, wanted)


# What counts passes has no forward-mode rule, which unlearning's expansions need.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "unlearning"])
def test_passes_are_what_is_done(name):
    """Counted at the model: a forward pass is one, a backward pass two."""
    counted, done = methods.counted()
    task, method = methods.task(1)._replace(model=counted), methods.METHODS[name]
    prepared = method.prepare(task)
    jax.effects_barrier()
    assert method.passes(task).shared == sum(done)
    done.clear()
    method.score(task, prepared, examples.take(methods.queries(), [0]))
    jax.effects_barrier()
    assert method.passes(task).query == sum(done)


def test_likenesses_are_those_of_their_functions():
    task, queries = methods.task(), methods.queries()
    found = {n: methods.scores(n, task)[n] for n in NAMES if "similarity" in n or n == "chance"}
    sides = queries.examples, task.corpus.examples
    wanted = similarity.latent_similarity(*sides), similarity.condition_similarity(*sides)
    np.testing.assert_array_equal(found["latent similarity"], wanted[0])
    np.testing.assert_array_equal(found["caption similarity"], wanted[1])
    random = similarity.chance(queries.ids, task.corpus.ids, methods.SEED)
    np.testing.assert_array_equal(found["chance"], random)
    heard = dict(methods.pooled(enumerate(queries.ids)))
    deaf = likenesses.log_mel(heard, {"track 0": heard["query 0"]})
    with pytest.raises(InputError, match=r"no log-mel of the track 'track 1' \(8 in all\)"):
        deaf.score(task, None, queries)


def test_small_groups_score_by_the_members_of_a_group_alone():
    corpus = methods.corpus(6)  # the first two are decoys
    names = ["decoy", "large", "large", "large", "large", "solo"]
    groups = dict(zip(corpus.ids, names, strict=True))
    method = likenesses.small_groups(groups | {"elsewhere": "solo"})
    found = method.score(methods.task(given=corpus), None, methods.queries())
    row = [0.0, 1 / 3, 1 / 3, 1 / 3, 1 / 3, 1.0]
    assert found["small works first (control)"].tolist() == [row] * methods.QUERIES
    partial = likenesses.small_groups({corpus.ids[0]: "decoy"})
    wanted = rf"no group of the track '{corpus.ids[1]}' \(5 in all\)"
    with pytest.raises(InputError, match=wanted):
        partial.score(methods.task(given=corpus), None, methods.queries())


def test_no_compilation_is_missed_by_the_count():
    before = len(COMPILED)
    jax.jit(lambda x: x * 3 + 1)(np.float32(2)).block_until_ready()
    assert len(COMPILED) == before + 1
