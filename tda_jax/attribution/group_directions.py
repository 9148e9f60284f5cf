"""Directions of one group of parameters, as directions of all of them with zeros elsewhere.

Programs that move every parameter then serve each group and each control: they compile once. Moving
a group alone is the same mathematics. What the group decides, the damping among it, is taken over
the group's own parameters.
"""

import jax
import numpy as np

from tda_jax import keys
from tda_jax import params as tree
from tda_jax.attribution import unlearn


def in_group(
    gradient: tree.Flat, fisher: tree.Flat, pattern: str, damping: float, corpus_size: int
) -> tree.Flat:
    """(F + λ)⁻¹ g / N over a group, λ = damping × the mean of F over the group; zeros elsewhere.

    Args:
        gradient: path -> (...) or, for blocks, (B, ...), of all parameters.
        fisher: path -> (...), of all parameters.
        pattern: a regular expression over paths, which parameters the group has.
        damping: c, above 0.
        corpus_size: N, the size of the model's training set.

    Raises:
        InputError: the pattern selects nothing; damping or N is not above 0; the group's F is zero
            throughout.
    """
    chosen, _ = tree.split(fisher, pattern)
    own = {path: gradient[path] for path in chosen}
    moved = unlearn.preconditioned(own, chosen, damping, corpus_size)
    return {
        path: moved[path] if path in moved else np.zeros_like(g) for path, g in gradient.items()
    }


def scrambled(direction: tree.Flat, seed: int, name: str) -> tree.Flat:
    """The direction with the sign of each parameter drawn at random.

    Its size is kept in every parameter; what it says of the query is gone. A sign is a function of
    (seed, name, the parameter's place among all), so the groups of one query share their signs.

    Args:
        direction: path -> (...), without an axis of blocks.
        seed: of the signs.
        name: the query's id.
    """
    root, words = keys.root(seed, keys.Domain.SIGNS), keys.track_words([name])[0]
    total = sum(leaf.size for leaf in direction.values())
    with jax.threefry_partitionable(True):  # the value must not depend on that setting
        drawn = jax.random.bits(keys.draw_key(root, words, 0), (total,), np.uint8)
    signs = 1 - 2 * (np.asarray(drawn) & 1).astype(np.int8)
    ends = np.cumsum([direction[path].size for path in sorted(direction)])
    parts = dict(zip(sorted(direction), np.split(signs, ends[:-1]), strict=True))
    return {
        path: leaf * parts[path].reshape(leaf.shape).astype(leaf.dtype)
        for path, leaf in direction.items()
    }
