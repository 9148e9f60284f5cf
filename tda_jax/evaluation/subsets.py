"""Which tracks are kept out of a retraining: sets of ids, whatever order they stand in."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from tda_jax import fingerprint, keys
from tda_jax.errors import InputError


class Retraining(NamedTuple):
    """One model of a bank.

    Attributes:
        removed: ids of the members that it is not trained on, rising; () for all of them.
        seed: of its training.
    """

    removed: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """A file name: a function of the seed and of which tracks are removed."""
        return f"{self.seed}-{fingerprint.of_text(*self.removed)[:16]}"


def without(removed: Iterable[str], seed: int) -> Retraining:
    """The retraining without some tracks."""
    return Retraining(tuple(sorted(set(removed))), seed)


def random_removals(
    ids: Sequence[str], count: int, share: float, seed: int
) -> list[tuple[str, ...]]:
    """Random sets of tracks to be kept out, each of the same size.

    Args:
        ids: of all members; the sets are a function of which they are, not of their order.
        count: how many sets.
        share: of the tracks that each keeps out, 0 to 1.
        seed: of the sets; set i is the same however many there are.

    Raises:
        InputError: a set would hold no track, or all.
    """
    size = round(share * len(ids))
    if count < 1 or not 1 <= size < len(ids):
        raise InputError(
            f"{count} sets of {share} of {len(ids)} tracks; give one set at least, and a share "
            "that keeps some tracks in and some out"
        )
    names = sorted(ids)
    seeds = (seed * 1_000_003 + i for i in range(count))  # sets of nearby seeds share none
    return [tuple(sorted(keys.subset(names, size, s))) for s in seeds]


def kept(ids: Sequence[str], removals: Iterable[Iterable[str]]) -> Bool[np.ndarray, "sets n"]:
    """Which tracks each set leaves in.

    Raises:
        InputError: a set removes a track that there is not.
    """
    place = {name: i for i, name in enumerate(ids)}
    rows = []
    for removed in removals:
        row = np.ones(len(ids), bool)
        unknown = [name for name in removed if name not in place]
        if unknown:
            raise InputError(f"{unknown[:5]} are to be removed and are no tracks of the corpus")
        row[[place[name] for name in removed]] = False
        rows.append(row)
    return np.array(rows, bool).reshape(len(rows), len(ids))
