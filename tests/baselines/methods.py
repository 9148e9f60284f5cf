"""Every method on a small model, in this process or, on forced host devices, in one of its own.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.baselines.methods OUT.npz BATCH
"""

import sys
from pathlib import Path

import jax
import numpy as np

from tda_jax import devices, keys
from tda_jax.attribution.contract import Model, Terms
from tda_jax.baselines import likenesses
from tda_jax.baselines.contract import Task
from tda_jax.baselines.forgetting import Ascent
from tda_jax.baselines.mucs import mucs
from tda_jax.baselines.tracin import tracin
from tda_jax.baselines.trak import d_trak, trak
from tda_jax.baselines.unlearning import unlearning
from tda_jax.baselines.ways import Plan, Step, Way
from tda_jax.models.denoiser import Condition
from tests.attribution import tiny

TRACKS, QUERIES, SEED = 9, 3, 5
GROUPS = {"transformer": tiny.GROUPS["attention"], "all": ".*"}
DRAWS, QUERY_DRAWS = keys.Draws(1, 6), keys.Draws(2, 6)


def untrained():
    """Parameters whose loss is well above that of any others here."""
    made = tiny.params(7, np.float32)
    return made | {"output": {name: 5 * x for name, x in made["output"].items()}}


ASCENT = Ascent(1e-2, untrained(), "attention/.*", 4, 2, 4, 6, keys.Draws(1, 10))


def terms(params, example, t, noise):
    """The terms of `tiny`, its text in a `Condition`."""
    return tiny.terms(params, example._replace(condition=example.condition.text), t, noise)


def model(seed=0, params=None):
    chosen = tiny.params(seed, np.float32) if params is None else params
    return Model(terms, chosen, GROUPS, tiny.STEPS, f"tiny {seed}")


def counted():
    """A trifle of a model with the same parameters, which compiles in a moment.

    And a list that its passes are added to as they run: 1 forward, 2 backward.
    """
    done = []

    @jax.custom_vjp
    def tap(x):
        jax.debug.callback(lambda: done.append(1))
        return x

    def backward(_, gradient):
        jax.debug.callback(lambda: done.append(2))
        return (gradient,)

    tap.defvjp(lambda x: (tap(x), None), backward)

    def counting(params, example, t, noise):
        size = sum((leaf**2).sum() for leaf in jax.tree.leaves(params))
        return Terms(tap(size * example.latent), example.latent, example.mask)

    return model()._replace(terms=counting), done


def corpus(n=TRACKS, seed=0, prefix="track", decoys=2):
    made = tiny.corpus(n, seed, np.float32, prefix)
    told = made.examples._replace(condition=Condition(text=made.examples.condition))
    return made._replace(examples=told, members=np.arange(n) >= decoys)


def task(batch=4, used=None, given=None):
    given = corpus() if given is None else given
    used = devices.local_devices(1) if used is None else used
    return Task(model(), given, 100, SEED, used, batch)


def queries():
    return corpus(QUERIES, 3, "query", 0)


def pooled(ids):
    return {name: np.random.default_rng(i).normal(size=(2, 3)) for i, name in ids}


WAY = Way("transformer", 0.1)
PLAN = Plan(
    (WAY, Way("all", 1.0, "probe")),
    (Step(WAY, 0.1), Step(WAY, 0.1, shared=True)),
    fisher_draws=3,
    query_draws=20,
    draws=keys.Draws(2, 10),
)
SMALL = "small works first (control)"
METHODS = {
    "unlearning": unlearning(PLAN),
    "TracIn": tracin(DRAWS, QUERY_DRAWS),
    "TRAK all": trak(DRAWS, QUERY_DRAWS, 40, (1e-2, 1.0)),
    "TRAK transformer": trak(DRAWS, QUERY_DRAWS, 40, (1e-2, 1.0), "transformer"),
    "D-TRAK all": d_trak(DRAWS, QUERY_DRAWS, 5, (1e-2, 1.0)),
    "MUCS": mucs(ASCENT, keys.Draws(1, 10)),
    "latent similarity": likenesses.latent(),
    "caption similarity": likenesses.caption(),
    "chance": likenesses.chance(),
    SMALL: likenesses.small_groups({name: f"group {i % 4}" for i, name in enumerate(corpus().ids)}),
    "log-mel similarity": likenesses.log_mel(
        pooled(enumerate(queries().ids, 100)), pooled(enumerate(corpus().ids))
    ),
}


def scores(name, given):
    """Scores of all queries by variant."""
    method = METHODS[name]
    return method.score(given, method.prepare(given), queries())


if __name__ == "__main__":
    cache = Path(__file__).parent.parent.parent / ".jax_cache"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    every = task(int(sys.argv[2]), devices.local_devices())
    found = {f"{m}|{v}": x for m in METHODS for v, x in scores(m, every).items()}
    np.savez(sys.argv[1], devices=len(jax.local_devices()), **found)
