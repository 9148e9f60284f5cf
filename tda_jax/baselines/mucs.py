"""MUCS: scores are relative rises of loss under a copy of the model that forgot the query.

The copy is made by `forgetting`. A track's score is the mean of (L_u - L_0) / (L_u + L_0 + 0.001)
over the same draws for every track and both models, of the 70 % noisiest timesteps (Serrà et al.
2026, arXiv 2605.17938).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float64, Int

from tda_jax import devices, examples, keys
from tda_jax import params as tree
from tda_jax.attribution import sweep
from tda_jax.attribution.rows import Row, layout
from tda_jax.baselines import forgetting
from tda_jax.baselines.contract import Method, Passes, Scores, Task
from tda_jax.baselines.forgetting import Ascent, Forgotten, Machinery
from tda_jax.examples import Corpus

DRAWS = keys.Draws(10, 10)
_NOISY = 3  # tenths of the schedule, the cleanest, that are left out
_SOFT = 1e-3  # added to the sum of losses
_SHARED = "draws of all tracks"


class _Noisy(NamedTuple):
    """A pass over the draws of each track that count, (blocks, per_row)."""

    mapped: devices.RowMap
    draws: Int[np.ndarray, "blocks k"]
    root: keys.Root


class Prepared(NamedTuple):
    """What all queries share.

    Attributes:
        machinery: of the ascent.
        noisy: the pass over all tracks.
        before: (n, draws), L_0 of each track.
    """

    machinery: Machinery
    noisy: _Noisy
    before: Float64[np.ndarray, "n draws"]


def mucs(
    plan: Ascent,
    draws: keys.Draws = DRAWS,
    report: Callable[[str, Forgotten], None] | None = None,
) -> Method:
    """The method, with the variants "MUCS" and "MUCS difference", the plain mean of L_u - L_0.

    The losses of tracks are those of training, which counts their padding; that of a query is of
    the frames that its mask keeps. The scores of a query that is no better than untrained from the
    start are nan. Its passes are the most that a query can take, those of all steps; what one took
    follows from the steps that `report` is told.

    Args:
        plan: how a query is forgotten.
        draws: of each track, over the whole schedule; only those with t >= 0.3 T are computed.
        report: told of each query's id and what became of it: its steps, losses and null are plain
            numbers, finite, and fit for JSON.

    Raises:
        InputError: a number of the plan is out of range, or the strata are no multiple of 10.
    """
    forgetting.refuse(plan)
    count = len(noisy_draws(draws))

    def prepare(task: Task) -> Prepared:
        machinery, noisy = forgetting.prepare(plan, task), _noisy(task, draws)
        before = _losses(task, noisy, machinery.moved, machinery.rest)
        return Prepared(machinery, noisy, before)

    def score(task: Task, prepared: Prepared, queries: Corpus) -> Scores:
        found = []
        for i, name in enumerate(queries.ids):
            query = examples.take(queries, [i])
            done = forgetting.forget(plan, task, prepared.machinery, query)
            if report is not None:
                report(name, done)
            found.append(_scores(task, prepared, done))
        return {name: np.stack([one[name] for one in found]) for name in found[0]}

    def passes(task: Task) -> Passes:
        tracks = float(count * len(task.corpus.ids))
        return Passes(tracks, tracks + plan.passes)

    return Method("MUCS", prepare, score, passes)


def skew(
    after: Float64[np.ndarray, "n draws"], before: Float64[np.ndarray, "n draws"]
) -> Float64[np.ndarray, " n"]:
    """The mean over draws of (L_u - L_0) / (L_u + L_0 + 0.001), in -1 .. 1."""
    return ((after - before) / (after + before + _SOFT)).mean(1)


def noisy_draws(draws: keys.Draws) -> Int[np.ndarray, " count"]:
    """The draws whose stratum lies in the 7 noisiest tenths of the schedule, t >= 0.3 T.

    Raises:
        InputError: the strata do not fill the tenths evenly.
    """
    stratum = np.arange(draws.count) % draws.strata
    return np.flatnonzero(keys.bin_of(draws.strata)[stratum] >= _NOISY).astype(np.int32)


def _scores(task: Task, prepared: Prepared, done: Forgotten) -> dict[str, np.ndarray]:
    """The scores of one query, by variant."""
    if not done.steps:
        unknown = np.full(len(task.corpus.ids), np.nan)
        return {"MUCS": unknown, "MUCS difference": unknown}
    after = _losses(task, prepared.noisy, done.moved, prepared.machinery.rest)
    return {
        "MUCS": skew(after, prepared.before),
        "MUCS difference": (after - prepared.before).mean(1),
    }


def _noisy(task: Task, draws: keys.Draws) -> _Noisy:
    kept = noisy_draws(draws)
    laid = layout(len(kept), task.batch)
    mapped = devices.row_map(
        sweep.losses_row(task.model, draws.strata, False), task.used, laid.rows
    )
    return _Noisy(mapped, kept.reshape(-1, laid.per_row), keys.root(task.seed, keys.Domain.SWEEP))


def _losses(
    task: Task, made: _Noisy, moved: tree.Flat, rest: tree.Flat
) -> Float64[np.ndarray, "n draws"]:
    """The losses of all tracks, each at the same draws."""
    corpus = task.corpus
    seen, words = examples.unmasked(corpus.examples), keys.track_words([_SHARED])[0]

    def rows(positions: np.ndarray) -> Row:
        track, block = np.divmod(positions, len(made.draws))
        here = jax.tree.map(lambda x: x[track], seen)
        return Row(here, np.tile(words, (len(track), 1)), made.draws[block])

    placed, root = devices.replicate((moved, made.root), task.used)
    count = len(corpus.ids) * len(made.draws)
    out = devices.results(made.mapped, (placed, rest, root), rows, count)
    return out["loss"].reshape(len(corpus.ids), -1).astype(np.float64)
