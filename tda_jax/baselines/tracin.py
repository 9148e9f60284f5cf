"""TracIn at the final checkpoint: how alike the gradients of query and track are.

The inner product of both losses' gradients says, to first order, by how much a small step of
training on the track lowers the loss of the query (Pruthi et al. 2020, arXiv 2002.08484, with one
checkpoint). Its cosine leaves out the length of gradients, which favours the same few tracks for
every query (Xie et al. 2024, arXiv 2401.09031).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from tda_jax import examples, keys
from tda_jax.attribution.contract import split_group
from tda_jax.baselines.contract import Method, Passes, Scores, Task
from tda_jax.baselines.gradients import (
    GradientPass,
    make_gradients,
    mean_gradients,
    products,
    refuse_zeros,
    spans_of,
    squares,
)
from tda_jax.examples import Corpus

DRAWS = keys.Draws(4, 10)
QUERY_DRAWS = keys.Draws(48, 10)  # as many as unlearning's query gradient has in a comparison


class Prepared(NamedTuple):
    """What all queries share.

    Attributes:
        query: the pass over a query's draws.
        tracks: the mean gradient of each track.
        spans: by group, its columns.
        lengths: by group, the norm of each track's gradient.
    """

    query: GradientPass
    tracks: Float32[np.ndarray, "n width"]
    spans: Mapping[str, Sequence[slice]]
    lengths: Mapping[str, Float64[np.ndarray, " n"]]


def tracin(
    draws: keys.Draws = DRAWS,
    query_draws: keys.Draws = QUERY_DRAWS,
    groups: Sequence[str] = ("transformer", "all"),
) -> Method:
    """The method, with the variants "dot GROUP" and "cosine GROUP" of each group.

    The loss of a track is that of training, which counts its padding; that of a query is of the
    frames that its mask keeps. The gradients of all tracks are held at once: n x P float32.

    Args:
        draws: of each track.
        query_draws: of a query.
        groups: names of the model's groups of parameters.
    """
    return Method(
        "TracIn",
        lambda task: _prepare(task, draws, query_draws, groups),
        _score,
        lambda task: Passes(3.0 * draws.count * len(task.corpus.ids), 3.0 * query_draws.count),
    )


def _prepare(
    task: Task, draws: keys.Draws, query_draws: keys.Draws, groups: Sequence[str]
) -> Prepared:
    """Gradients of all tracks with respect to every parameter that is in a group.

    Raises:
        InputError: the model lacks a group, or the gradients of a group are zero for every track.
    """
    for group in groups:
        split_group(task.model, group)
    patterns = {group: task.model.groups[group] for group in groups}
    together = "|".join(f"(?:{pattern})" for pattern in patterns.values())
    made = make_gradients(task, together, draws, keys.Domain.SWEEP)
    rows = mean_gradients(made, examples.unmasked(task.corpus.examples), task.corpus.ids)
    spans = {g: spans_of(made, task.model.params, pattern) for g, pattern in patterns.items()}
    lengths = {group: np.sqrt(squares(rows, span)) for group, span in spans.items()}
    for group, length in lengths.items():
        refuse_zeros(length[:, None], f"the group {group!r}")
    query = make_gradients(task, together, query_draws, keys.Domain.QUERY)
    return Prepared(query, rows, spans, lengths)


def _score(task: Task, prepared: Prepared, queries: Corpus) -> Scores:
    """The scores; a cosine with a gradient of zero is nan."""
    rows = mean_gradients(prepared.query, queries.examples, queries.ids)
    found = {}
    for group, spans in prepared.spans.items():
        dot = products(rows, prepared.tracks, spans)
        scale = np.sqrt(squares(rows, spans))[:, None] * prepared.lengths[group][None]
        found[f"dot {group}"] = dot
        found[f"cosine {group}"] = np.divide(
            dot, scale, out=np.full_like(dot, np.nan), where=scale > 0
        )
    return found
