"""Likeness, size and chance in the form of methods of attribution: what every method must beat.

None looks at the model: their passes are 0. See `similarity` for what the likenesses compare.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

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


def small_groups(groups: Mapping[str, str]) -> Method:
    """1 / (members in the group of the track), "small works first (control)".

    The same for every query; 0 for a track without members in its group. A method whose discoveries
    this one matches has found which works are small, and nothing of the query.

    Args:
        groups: track id -> the name of its group, for all tracks of the corpus.
    """

    def score(task: Task, asked: Corpus) -> np.ndarray:
        corpus = task.corpus
        _refuse_missing(corpus.ids, groups, "group of the track", "name it")
        own = [groups[name] for name in corpus.ids]
        sizes = Counter(g for g, member in zip(own, corpus.members, strict=True) if member)
        each = [1.0 / sizes[g] if sizes[g] else 0.0 for g in own]
        return np.tile(each, (len(asked.ids), 1))

    return _method("small works first (control)", score)


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
    _refuse_missing(corpus.ids, pooled, f"log-mel of the {kind}", "give its recording")
    return np.stack([pooled[name] for name in corpus.ids])


def _refuse_missing(
    ids: Sequence[str], known: Mapping[str, object], what: str, remedy: str
) -> None:
    """Refuses ids that nothing is known of.

    Raises:
        InputError: there are some.
    """
    missing = [name for name in ids if name not in known]
    if missing:
        raise InputError(
            f"no {what} {missing[0]!r} ({len(missing)} in all); {remedy}, or leave this method out"
        )
