"""How alike queries and tracks are by what needs no model of influence: columns beside scores."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float, Float64

from tda_jax.attribution.units import Tracks
from tda_jax.baselines import similarity
from tda_jax.examples import Corpus
from tda_jax.models.denoiser import Condition

Pooled = Mapping[str, Float[np.ndarray, "2 mels"]]
"""Pooled log-mels by id."""


def likeness(
    queries: Corpus, corpus: Corpus, tracks: Tracks, heard: tuple[Pooled, Pooled]
) -> dict[str, Float64[np.ndarray, "queries tracks"]]:
    """Similarities of each query to each track, by name.

    Args:
        queries: to be compared.
        corpus: units of tracks; a track's similarity is the mean over its units.
        tracks: of the corpus.
        heard: the pooled log-mels of the queries, and of the corpus.

    Returns:
        `latent_similarity`, `condition_similarity` and `log_mel_similarity` (see `similarity`),
        each where both sides have what it compares; nan for a pair that it says nothing of.

    Raises:
        InputError: the conditions, or the log-mels, of both sides are of two kinds.
    """
    found = {}
    if queries.examples.latent.shape[1:] == corpus.examples.latent.shape[1:]:
        found["latent_similarity"] = similarity.latent_similarity(queries.examples, corpus.examples)
    condition = corpus.examples.condition
    if isinstance(condition, Condition) and jax.tree.leaves(condition):
        found["condition_similarity"] = similarity.condition_similarity(
            queries.examples, corpus.examples
        )
    sounds = [_stacked(c, pooled) for c, pooled in zip((queries, corpus), heard, strict=True)]
    if all(x is not None for x in sounds):
        found["log_mel_similarity"] = similarity.log_mel_similarity(*sounds)
    return {name: _of_tracks(values, tracks) for name, values in found.items()}


def _stacked(corpus: Corpus, pooled: Pooled) -> np.ndarray | None:
    """In the order of the corpus; None where one is missing."""
    if not pooled.keys() >= set(corpus.ids):
        return None
    return np.stack([pooled[name] for name in corpus.ids])


def _of_tracks(values: np.ndarray, tracks: Tracks) -> np.ndarray:
    """The mean over the units of each track that say something."""
    if len(tracks.ids) == values.shape[1] and np.array_equal(
        tracks.of_unit, np.arange(len(tracks.ids))
    ):
        return values
    known = ~np.isnan(values)
    total, count = np.zeros((2, len(values), len(tracks.ids)))
    for query in range(len(values)):
        total[query] = np.bincount(tracks.of_unit, np.where(known[query], values[query], 0.0))
        count[query] = np.bincount(tracks.of_unit, known[query])
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
