"""Levels of a comparison whose truth is known: losses are sums of effects, with noise."""

import numpy as np

from tda_jax import examples
from tda_jax.baselines.contract import Passes
from tda_jax.evaluation.subsets import kept, random_removals
from tda_jax.evaluation.synthetic import synthetic_corpus
from tda_jax.evaluation.truth import Level
from tda_jax.evaluation.truth_scores import Scored

SUBSETS = 40
FAMILIES = {
    "true": "unlearning, exact",
    "half true": "unlearning, exact",
    "weak": "unlearning, odd part",
    "rival": "a rival",
    "noise": "chance",
    "scrambled": "scrambled signs (control)",
}
OWN = ["unlearning, exact", "unlearning, odd part"]


def corpus():
    return synthetic_corpus(0, 4, 4, 2, 2, 1)


def removals(c):
    members = [name for name, member in zip(c.ids, c.members, strict=True) if member]
    return kept(members, random_removals(members, SUBSETS, 0.5, 0))


def level(c, updates, seed, kinds=("generated",) * 4):
    """Queries are tracks under other ids; the effect of a member is large for its relatives."""
    rng = np.random.default_rng([seed, updates])
    queries = examples.take(c, np.flatnonzero(c.members)[: len(kinds)])
    metadata = [{**m, "kind": k} for m, k in zip(queries.metadata, kinds, strict=True)]
    ids = tuple(f"q{updates}-{i}" for i in range(len(kinds)))
    queries = queries._replace(ids=ids, metadata=tuple(metadata))
    shape = (len(kinds), len(c.ids))
    work = np.array([[m["work"] == q["work"] for m in c.metadata] for q in metadata])
    effect = work + 0.5 * rng.standard_normal(shape)
    mixed = {"true": 0, "half true": 0.7, "weak": 4, "rival": 2.5}
    scores = {k: effect + s * rng.standard_normal(shape) for k, s in mixed.items()}
    scores |= {k: rng.standard_normal(shape) for k in ("noise", "scrambled")}
    exact = -(effect[:, c.members] @ removals(c).T).T  # (subsets, queries)
    losses = exact + 0.5 * rng.standard_normal((2, *exact.shape))
    cost = {k: Passes(10.0, float(10**i)) for i, k in enumerate(scores)}
    return Level(updates, queries, Scored(scores, dict(FAMILIES), cost), losses, losses[:, 0])
