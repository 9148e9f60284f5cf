"""Is the false-discovery rate that was promised kept? Decoys that calibrated nothing tell.

Decoys were never trained on, so a decoy that is called is a false discovery for certain.
"""

import math
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from tda_jax import named_draws
from tda_jax.attribution.calibration import q_values
from tda_jax.errors import InputError


class Discoveries(NamedTuple):
    """What is called for each query: means over both folds.

    Attributes:
        called: number of members that are called.
        false: estimated number of false ones among them, without a bound; nan where a half of
            the decoys has no score.
        precision: estimated share of true ones, 0 .. 1; the mean over the folds that call a
            member, nan where neither does.
    """

    called: Float64[np.ndarray, " queries"]
    false: Float64[np.ndarray, " queries"]
    precision: Float64[np.ndarray, " queries"]


def precision(
    scores: Float[np.ndarray, "queries n"],
    members: Bool[np.ndarray, " n"],
    level: float,
    seed: int,
) -> Discoveries:
    """The precision of the members that are called at a false-discovery rate, by cross-fitting.

    The decoys are split at random in halves. Members are given q-values against one half, and
    those with q <= level are called; each decoy of the other half is put among the members to see
    whether it would be called. Then the halves change places. The false ones among the called
    members are estimated by the called decoys · members / decoys of that half.

    This assumes that a member without influence scores like a decoy; each member is then taken to
    be called falsely as often as a decoy is, though those with influence cannot be: the estimate is
    of too many false ones rather than too few. Where few are called the precision of one query is
    coarse and too high: a called decoy stands for several false ones, and none for none. Whether a
    promise is kept is read off many queries: 1 - sum of `false` / sum of `called`, against
    1 - level.

    Args:
        scores: higher is more support; a nan score is neither called nor counted.
        members: False for decoys.
        level: false-discovery rate, between 0 and 1.
        seed: of the split, which is the same for all queries.

    Raises:
        InputError: there is no member, there are fewer than 2 decoys, or the level is not between
            0 and 1.
    """
    decoys = np.flatnonzero(~members)
    if not members.any() or len(decoys) < 2:
        raise InputError(
            f"{int(members.sum())} members and {len(decoys)} decoys; give 1 and 2 at least"
        )
    if not 0 < level < 1:
        raise InputError(f"level = {level}; give a number between 0 and 1")
    shuffled = named_draws.generator(seed, "decoy halves").permutation(decoys)
    folds = []
    for half in np.array_split(shuffled, 2):
        reference = np.zeros(len(members), bool)
        reference[half] = True
        folds.append([_fold(row, members, reference, level) for row in scores])
    called, false = np.moveaxis(np.array(folds, np.float64).reshape(2, len(scores), 2), 2, 0)
    wrong = np.divide(false, called, out=np.full(called.shape, np.nan), where=called > 0)
    known = ~np.isnan(wrong)
    total = np.where(known, 1 - np.minimum(wrong, 1), 0.0).sum(axis=0)
    share = np.full(len(scores), np.nan)
    np.divide(total, known.sum(axis=0), out=share, where=known.any(axis=0))
    return Discoveries(called.mean(axis=0), false.mean(axis=0), share)


def fewest(members: Bool[np.ndarray, " n"], level: float) -> int:
    """The least number of members that `precision` can call, if it calls any.

    A member above all k reference decoys has the p-value 1 / (k + 1), and the q-value of the j
    best is that times the number of members over j. Where more are asked for than there are
    members, nothing can be called: there are too few decoys for the level.

    Args:
        members: False for decoys.
        level: false-discovery rate, between 0 and 1.
    """
    references = -(-int((~members).sum()) // 2)  # the larger half
    return math.ceil(int(members.sum()) / ((references + 1) * level) * (1 - 1e-12))


def _fold(
    scores: np.ndarray, members: np.ndarray, reference: np.ndarray, level: float
) -> tuple[int, float]:
    """How many members are called against the reference decoys, and about how many falsely."""
    known = ~np.isnan(scores)
    own, held_out = members & known, np.flatnonzero(~members & ~reference & known)
    found = int(_called(scores, own, reference, level).sum())
    if not len(held_out):
        return found, float("nan")

    def let_in(decoy: int) -> bool:
        among = own.copy()
        among[decoy] = True
        return bool(_called(scores, among, reference, level)[decoy])

    order = held_out[np.argsort(scores[held_out])].tolist()
    first = bisect_left(order, True, key=let_in)  # a decoy above one that is let in is too
    return found, float((len(order) - first) * own.sum() / len(order))


def _called(
    scores: np.ndarray, targets: np.ndarray, reference: np.ndarray, level: float
) -> np.ndarray:
    """Which of the targets are called against the reference decoys; no other track is."""
    part = targets | reference
    called = np.zeros(len(scores), bool)
    called[part] = q_values(scores[part], targets[part]) <= level  # a nan q is not called
    return called
