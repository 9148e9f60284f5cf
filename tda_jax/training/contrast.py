"""Training of a text encoder: a caption's vector is to point where the vectors of its tracks do.

As CLIP and CLAP are trained (Radford et al. 2021, arXiv 2103.00020; Wu et al. 2023, arXiv
2211.06687), but captions stand on several tracks here and tracks have several captions: all pairs
of a pair's caption or track are its positives (Khosla et al. 2020, arXiv 2004.11362, eq. 2), not
one against the others. The part that turns sounds into vectors is small and is left behind.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from tda_jax.errors import InputError
from tda_jax.named_draws import generator
from tda_jax.training import loop
from tda_jax.training.checkpoints import Checkpoints

_HIDDEN = 128  # of the part for sounds
_SHARED = 64  # of the vectors that are compared
_SCALE = 10.0  # of their cosines, at first

Embed = Callable[[Any, Int[Array, "b tokens"], Bool[Array, "b tokens"]], Float[Array, "b d"]]
"""embed(params, ids, mask) -> one vector for each caption."""


class Pairs(NamedTuple):
    """What sounds how.

    Attributes:
        ids: (n, tokens) int32, a caption of a track.
        mask: (n, tokens), True where there is a token.
        sounds: (n, features) of the track, or of a window of it; see `sound_features`.
        track: (n,), which track it is, by any numbers: pairs of one track, under whichever
            captions, are never each other's negatives.
    """

    ids: Int[np.ndarray, "n tokens"]
    mask: Bool[np.ndarray, "n tokens"]
    sounds: Float[np.ndarray, "n features"]
    track: Int[np.ndarray, " n"]


def sound_features(
    latents: Float[np.ndarray, "n frames bins channels"], frames: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n features"]:
    """Mean and standard deviation over valid frames of each bin and channel, standardised."""
    flat = latents.reshape(*latents.shape[:2], -1).astype(np.float64)
    parts = [x[:count] for x, count in zip(flat, frames, strict=True)]
    found = np.stack([np.concatenate([x.mean(0), x.std(0)]) for x in parts])
    spread = found.std(0)
    return ((found - found.mean(0)) / np.where(spread > 0, spread, 1.0)).astype(np.float32)


def fit(
    embed: Embed,
    params: Any,
    pairs: Pairs,
    recipe: loop.Recipe,
    checkpoints: Checkpoints | None = None,
    callback: Callable[[int, Any], None] | None = None,
    callback_steps: tuple[int, ...] = (),
) -> loop.Trained:
    """Trains a text encoder; see `loop.train`. The result holds its parameters alone.

    Args:
        embed: the text encoder.
        params: to start from; left as they are.
        pairs: captions of tracks and how these sound.
        recipe: how to train.
        checkpoints: where to keep what is done.
        callback: called with (updates done, averaged parameters) at `callback_steps`.
        callback_steps: numbers of updates, in 1 .. steps.

    Raises:
        InputError: there is one caption or one track only, which tells nothing apart, or as
            `loop.train`.
    """
    _, caption = np.unique(pairs.ids, axis=0, return_inverse=True)
    _, track = np.unique(pairs.track, return_inverse=True)
    if caption.max() == 0:
        raise InputError("every track has the same caption; a text encoder cannot learn from that")
    if track.max() == 0:
        raise InputError("there is one track only; a text encoder cannot learn from that")
    width = jax.eval_shape(embed, params, pairs.ids[:1], pairs.mask[:1]).shape[1]
    start = {"encoder": params, "compare": _head(width, pairs.sounds.shape[1], recipe.seed)}
    numbers = (x.reshape(-1).astype(np.int32) for x in (track, caption))
    data = (pairs.ids, pairs.mask, pairs.sounds, *numbers)

    def rows(step: int, positions: np.ndarray) -> Any:
        del step
        return tuple(x[positions] for x in data)

    def encoder_alone(done: int, average: Any) -> None:
        if callback is not None:
            callback(done, average["encoder"])

    n = len(pairs.ids)
    found = loop.train(
        _loss(embed), start, rows, n, recipe, checkpoints, encoder_alone, callback_steps
    )
    return loop.Trained(found.params["encoder"], found.losses)


def _head(text: int, sound: int, seed: int) -> dict[str, Array]:
    """What brings text and sound to one space."""

    def matrix(name: str, rows: int, columns: int) -> Array:
        drawn = generator(seed, f"contrast {name}").standard_normal((rows, columns))
        return jnp.asarray(drawn / rows**0.5, jnp.float32)

    return {
        "text": matrix("text", text, _SHARED),
        "sound_in": matrix("sound_in", sound, _HIDDEN),
        "sound_out": matrix("sound_out", _HIDDEN, _SHARED),
        "log_scale": jnp.float32(np.log(_SCALE)),
    }


def _loss(embed: Embed) -> loop.Loss:
    """(params, (ids, mask, sounds, track, caption), key) -> the mean loss over both directions."""

    def loss(params: Any, rows: Any, key: Array) -> Array:
        del key
        ids, mask, sounds, track, caption = rows
        head = params["compare"]
        text = _unit(embed(params["encoder"], ids, mask) @ head["text"])
        sound = _unit(jax.nn.relu(sounds @ head["sound_in"]) @ head["sound_out"])
        logits = jnp.exp(head["log_scale"]) * text @ sound.T
        alike = [x[:, None] == x[None, :] for x in (track, caption)]
        same = (alike[0] | alike[1]).astype(jnp.float32)
        share = same / same.sum(1, keepdims=True)
        both = [jax.nn.log_softmax(x, axis=1) for x in (logits, logits.T)]
        return -0.5 * sum((share * x).sum(1).mean() for x in both)

    return loss


def _unit(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
    return x / jnp.sqrt(jnp.square(x).sum(1, keepdims=True) + np.float32(1e-12))
