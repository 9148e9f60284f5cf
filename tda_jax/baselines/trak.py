"""TRAK and D-TRAK: projected gradients under the inverse of the members' own covariance.

With φ(x) the projected mean gradient of an example, Φ the rows of the members, and k the number of
rows or columns of Φ, whichever is less,

    score(query, track) = φ(query)ᵀ (ΦᵀΦ + λI)⁻¹ φ(track),    λ = damping · trace(ΦᵀΦ) / k

TRAK takes gradients of the loss (Park et al. 2023, arXiv 2303.14186, eq. 15, with one model, and as
arXiv 2311.00500, section 3, has it for diffusion). D-TRAK takes gradients of the mean square of the
network's output instead, of queries and tracks alike (Zheng et al. 2024, arXiv 2311.00500).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from tda_jax import examples, keys
from tda_jax.attribution.contract import split_group
from tda_jax.baselines.contract import Method, Passes, Scores, Task
from tda_jax.baselines.gradients import (
    GradientPass,
    Of,
    Projection,
    make_gradients,
    mean_gradients,
    refuse_zeros,
)
from tda_jax.errors import InputError
from tda_jax.examples import Corpus

DRAWS = keys.Draws(4, 10)
QUERY_DRAWS = keys.Draws(48, 10)
DAMPINGS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
DIMENSION = 2048


class Prepared(NamedTuple):
    """What all queries share.

    Attributes:
        query: the pass over a query's draws.
        solved: by variant, (ΦᵀΦ + λI)⁻¹ φ of each track, in its columns.
    """

    query: GradientPass
    solved: Mapping[str, Float64[np.ndarray, "d n"]]


def trak(
    draws: keys.Draws = DRAWS,
    query_draws: keys.Draws = QUERY_DRAWS,
    dimension: int = DIMENSION,
    dampings: Sequence[float] = DAMPINGS,
    group: str = "all",
) -> Method:
    """The method "TRAK GROUP", with a variant "TRAK GROUP DAMPING" for each damping.

    The loss of a track is that of training, which counts its padding; that of a query is of the
    frames that its mask keeps.

    Args:
        draws: of each track.
        query_draws: of a query.
        dimension: d, of the projection.
        dampings: λ as a share of the mean eigenvalue of the smaller of ΦᵀΦ and ΦΦᵀ, above 0.
        group: of the model's parameters, that gradients are taken of.

    Raises:
        InputError: a damping is not above 0.
    """
    return _method("TRAK", "loss", draws, query_draws, dimension, dampings, group)


def d_trak(
    draws: keys.Draws = DRAWS,
    query_draws: keys.Draws = QUERY_DRAWS,
    dimension: int = DIMENSION,
    dampings: Sequence[float] = DAMPINGS,
    group: str = "all",
) -> Method:
    """The method "D-TRAK GROUP", with variants named like it; otherwise as `trak`."""
    return _method("D-TRAK", "output", draws, query_draws, dimension, dampings, group)


def solve(
    rows: Float[np.ndarray, "n d"], members: Bool[np.ndarray, " n"], damping: float
) -> Float64[np.ndarray, "d n"]:
    """(ΦᵀΦ + λI)⁻¹ φ of each row, in float64, by the smaller of both systems.

    With fewer members than columns, by (ΦᵀΦ + λI)⁻¹ = (I - Φᵀ (ΦΦᵀ + λI)⁻¹ Φ) / λ (Woodbury). With
    80 members and a damping of 1e-6, its rounding was below 3e-9 of the greatest score.

    Args:
        rows: φ.
        members: which rows are Φ.
        damping: λ as a share of trace(ΦᵀΦ) / min(number of members, d), above 0.

    Raises:
        InputError: no row is a member, or the members' rows are all zero.
    """
    phi, columns = rows[members].astype(np.float64), rows.astype(np.float64).T
    if not len(phi):
        raise InputError("the corpus has no member; mark the tracks that the model was trained on")
    refuse_zeros(phi, "the members")
    few = len(phi) < phi.shape[1]
    gram = phi @ phi.T if few else phi.T @ phi
    strength = damping * np.trace(gram) / len(gram)
    damped = gram + strength * np.eye(len(gram))
    if not few:
        return np.linalg.solve(damped, columns)
    return (columns - phi.T @ np.linalg.solve(damped, phi @ columns)) / strength


def _method(
    name: str,
    of: Of,
    draws: keys.Draws,
    query_draws: keys.Draws,
    dimension: int,
    dampings: Sequence[float],
    group: str,
) -> Method:
    if not dampings or not all(0 < c < np.inf for c in dampings):
        raise InputError(f"dampings = {tuple(dampings)}; give one at least, each above 0")
    named = f"{name} {group}"

    def prepare(task: Task) -> Prepared:
        split_group(task.model, group)
        pattern, projection = task.model.groups[group], Projection(dimension, task.seed)
        made = make_gradients(task, pattern, draws, keys.Domain.SWEEP, of, projection)
        rows = mean_gradients(made, examples.unmasked(task.corpus.examples), task.corpus.ids)
        solved = {f"{named} {c:g}": solve(rows, task.corpus.members, c) for c in dampings}
        query = make_gradients(task, pattern, query_draws, keys.Domain.QUERY, of, projection)
        return Prepared(query, solved)

    def score(task: Task, prepared: Prepared, queries: Corpus) -> Scores:
        rows = mean_gradients(prepared.query, queries.examples, queries.ids).astype(np.float64)
        return {variant: rows @ solved for variant, solved in prepared.solved.items()}

    def passes(task: Task) -> Passes:
        return Passes(3.0 * draws.count * len(task.corpus.ids), 3.0 * query_draws.count)

    return Method(named, prepare, score, passes)
