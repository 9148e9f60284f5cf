"""Likeness and chance in the form of methods of attribution: what every method must beat.

None looks at the model: their passes are 0. See `similarity` for what each compares.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from tda_jax.baselines import similarity
from tda_jax.baselines.contract import Method, Passes, Scores, Task
from tda_jax.baselines.likeness import Pooled
from tda_jax.errors import InputError
from tda_jax.examples import Corpus


def latent() -> Method:
    """The cosine of latents, "latent similarity"; nan for a pair that shares no valid frame."""
    return _method(
        "latent similarity",
        lambda task, queries: similarity.latent_similarity(queries.examples, task.corpus.examples),
    )


def caption() -> Method:
    """The cosine of conditions, "caption similarity"; of `models.denoiser.Condition` alone."""
    return _method(
        "caption similarity",
        lambda task, queries: similarity.condition_similarity(
            queries.examples, task.corpus.examples
        ),
    )


def chance() -> Method:
    """Uniform scores, "chance": a function of (seed, query id, track id)."""
    return _method(
        "chance",
        lambda task, queries: similarity.chance(queries.ids, task.corpus.ids, task.seed),
    )


def log_mel(queries: Pooled, tracks: Pooled) -> Method:
    """The cosine of how recordings sound as a whole, "log-mel similarity".

    Args:
        queries: pooled log-mels by id, see `audio.mel.pooled`.
        tracks: likewise. Numbers are standardised over the tracks that are scored.
    """

    def score(task: Task, asked: Corpus) -> np.ndarray:
        return similarity.log_mel_similarity(
            _stacked(asked, queries, "query"), _stacked(task.corpus, tracks, "track")
        )

    return _method("log-mel similarity", score)


def _method(name: str, score: Callable[[Task, Corpus], Float64[np.ndarray, "queries n"]]) -> Method:
    def scores(task: Task, _: None, queries: Corpus) -> Scores:
        return {name: score(task, queries)}

    return Method(name, lambda task: None, scores, lambda task: Passes(0.0, 0.0))


def _stacked(corpus: Corpus, pooled: Pooled, kind: str) -> np.ndarray:
    """In the order of the corpus.

    Raises:
        InputError: one is missing.
    """
    missing = [name for name in corpus.ids if name not in pooled]
    if missing:
        raise InputError(
            f"no log-mel of the {kind} {missing[0]!r} ({len(missing)} in all); give its recording, "
            "or leave this method out"
        )
    return np.stack([pooled[name] for name in corpus.ids])
