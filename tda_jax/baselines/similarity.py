"""What attribution must beat: likeness of latents, conditions and sound, and chance.

Each gives scores (queries, n) from queries and tracks; higher is more alike.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from tda_jax import columns
from tda_jax.errors import InputError
from tda_jax.examples import Example
from tda_jax.keys import track_words
from tda_jax.models.denoiser import Condition

_BLOCK = 256  # tracks whose latents are in float64 at once


def latent_similarity(queries: Example, corpus: Example) -> Float64[np.ndarray, "queries n"]:
    """Cosine of flattened latents over the frames that are valid in both.

    Args:
        queries: with a leading axis; a mask between 0 and 1 weighs a frame.
        corpus: tracks of the same window, with a leading axis of n.

    Returns:
        -1 .. 1; nan for two that share no valid frame, or if either is zero in all of them.

    Raises:
        InputError: the windows differ.
    """
    if queries.latent.shape[1:] != corpus.latent.shape[1:]:
        raise InputError(
            f"latents of {queries.latent.shape[1:]} and {corpus.latent.shape[1:]} have no cosine; "
            "give queries and tracks of one shape"
        )
    query = _frames(queries.latent, queries.mask)
    blocks = [slice(i, i + _BLOCK) for i in range(0, corpus.latent.shape[0], _BLOCK)]
    parts = [_masked_cosine(*query, *_frames(corpus.latent[b], corpus.mask[b])) for b in blocks]
    return np.concatenate(parts, axis=1)


def condition_similarity(queries: Example, corpus: Example) -> Float64[np.ndarray, "queries n"]:
    """Cosine of what the model was conditioned on.

    Of the embeddings, or for a model of text, of the mean of the tokens under the text mask.

    Returns:
        -1 .. 1; nan for a zero vector, and for a text without a token.

    Raises:
        InputError: a condition is no `Condition` with an embedding or a text, or one side has
            embeddings and the other text.
    """
    kinds = [_kind(e.condition) for e in (queries, corpus)]
    vectors = [_condition_vectors(e.condition) for e in (queries, corpus)]
    if kinds[0] != kinds[1] or vectors[0].shape[1] != vectors[1].shape[1]:
        raise InputError(
            f"queries with {kinds[0]} of width {vectors[0].shape[1]} and tracks with {kinds[1]} of "
            f"width {vectors[1].shape[1]} have no cosine; give conditions of one kind"
        )
    with np.errstate(invalid="ignore"):
        query, track = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors)
    return query @ track.T


def log_mel_similarity(
    queries: Float[np.ndarray, "queries 2 _"], corpus: Float[np.ndarray, "n 2 _"]
) -> Float64[np.ndarray, "queries n"]:
    """Cosine of how two recordings sound over time as a whole: their timbre and level of detail.

    Of pooled log-mels, each of their numbers standardised over the corpus, so that what all of its
    tracks have in common counts for nothing; a number in which no track differs is left out.

    Args:
        queries: means and spreads, see `audio.mel.pooled`.
        corpus: likewise.

    Returns:
        -1 .. 1; nan for one that is the corpus's mean in everything.

    Raises:
        InputError: the numbers of mels differ.
    """
    if queries.shape[1:] != corpus.shape[1:]:
        raise InputError(
            f"pooled log-mels of {queries.shape[1:]} and {corpus.shape[1:]} have no cosine; give "
            "queries and tracks of one spectrogram"
        )
    x, y = (z.reshape(len(z), -1).astype(np.float64) for z in (queries, corpus))
    middle, spread = y.mean(axis=0), y.std(axis=0)
    kept = spread > 0
    x, y = ((z - middle)[:, kept] / spread[kept] for z in (x, y))
    with np.errstate(invalid="ignore"):
        x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    return x @ y.T


def chance(
    query_ids: Sequence[str], track_ids: Sequence[str], seed: int
) -> Float64[np.ndarray, "queries n"]:
    """Uniform scores in [0, 1), each a function of (seed, query id, track id) alone."""
    salt = f"chance {seed} ".encode()
    tracks = [words.tobytes() for words in track_words(track_ids)]
    starts = [salt + words.tobytes() for words in track_words(query_ids)]
    digests = (hashlib.sha256(start + track).digest()[:8] for start in starts for track in tracks)
    whole = np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
    scores = (whole >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return scores.reshape(len(query_ids), len(track_ids))


def _frames(latent: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n, frames, elements of a frame) and masks (n, frames), float64."""
    latent = np.asarray(latent, np.float64)
    return latent.reshape(*latent.shape[:2], -1), np.asarray(mask, np.float64)


def _masked_cosine(
    x: np.ndarray, x_mask: np.ndarray, y: np.ndarray, y_mask: np.ndarray
) -> np.ndarray:
    """Cosines (queries, n) under the product of the masks, as three products of matrices."""

    def weighted(latent: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return (latent * mask[:, :, None]).reshape(len(latent), -1)

    x_power, y_power = x_mask * np.sum(x**2, axis=2), y_mask * np.sum(y**2, axis=2)
    scale = np.sqrt((x_power @ y_mask.T) * (x_mask @ y_power.T))
    product = weighted(x, x_mask) @ weighted(y, y_mask).T
    return np.divide(product, scale, out=np.full_like(product, np.nan), where=scale > 0)


def _kind(condition: object) -> str:
    """What a batch of conditions is compared by."""
    if isinstance(condition, Condition) and condition.embedding is not None:
        return "embeddings"
    if not isinstance(condition, Condition) or condition.text is None:
        raise InputError(
            f"a condition of type {type(condition).__name__} has no embedding and no text; give a "
            "Condition with either"
        )
    return "text"


def _condition_vectors(condition: Condition) -> np.ndarray:
    """One vector for each condition, (n, width); no more is in memory of all of them."""
    if condition.embedding is not None:
        return columns.by_row(lambda x: np.asarray(x, np.float64), condition.embedding)
    if condition.text_mask is None:
        return columns.by_row(lambda x: np.asarray(x, np.float64).mean(axis=1), condition.text)
    return columns.by_row(_mean_token, condition.text, condition.text_mask)


def _mean_token(text: Any, mask: Any) -> np.ndarray:
    text, mask = np.asarray(text, np.float64), np.asarray(mask, np.float64)
    with np.errstate(invalid="ignore"):
        return np.einsum("nt,ntd->nd", mask, text) / mask.sum(axis=1, keepdims=True)
