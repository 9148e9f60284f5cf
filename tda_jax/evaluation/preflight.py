"""Before hours are spent: do checkpoint, corpus, scaling and conditions fit each other?

Each check is decided by a test over tracks, never by a mean: what their spread leaves open is said
to be open.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64, Int

from tda_jax import fingerprint, keys
from tda_jax.attribution import calibration, sweep
from tda_jax.attribution.contract import Model, Terms, split_group
from tda_jax.attribution.units import Tracks
from tda_jax.corpus import fitting
from tda_jax.evaluation.ranking import mean_interval
from tda_jax.evaluation.verdicts import FAILS, HOLDS, above, decided, shown
from tda_jax.examples import Corpus, in_memory, take

_ALIKE = 0.9  # correlation of mean spectra above which a decoded window is the one encoded
_GROUP = "all"


class Check(NamedTuple):
    """One check: whether it passed (None: not decided, or not possible), and what was seen."""

    name: str
    passed: bool | None
    says: str


class Losses(NamedTuple):
    """Mean losses of tracks over the same draws, (n,) each.

    Attributes:
        own: under their own conditions.
        other: under conditions of other tracks.
        nothing: of a model that predicts zero.
    """

    own: Float64[np.ndarray, " n"]
    other: Float64[np.ndarray, " n"]
    nothing: Float64[np.ndarray, " n"]


def chosen(corpus: Corpus, tracks: Tracks, count: int, seed: int) -> Corpus:
    """Some members and as many decoys, each by its first window and caption.

    Args:
        corpus: units of tracks.
        tracks: of the corpus.
        count: of either side at most.
        seed: of the choice, which depends on ids alone.
    """
    first = np.flatnonzero((tracks.window == 0) & (tracks.caption == 0))
    digest = [fingerprint.of_text(f"preflight {seed}", corpus.ids[i]) for i in first]
    order = first[sorted(range(len(first)), key=digest.__getitem__)]
    sides = [order[corpus.members[order] == side][:count] for side in (True, False)]
    return in_memory(take(corpus, np.sort(np.concatenate(sides))))


def others(condition: Any) -> Int[np.ndarray, " n"]:
    """For each condition the place of one that differs from it, each used once, if that can be.

    In the order of their contents, each takes that which lies as far on as the largest group of
    equal ones is large.
    """
    leaves = [np.asarray(x) for x in jax.tree.leaves(condition)]
    n = len(leaves[0])
    said = [fingerprint.of_text(*(fingerprint.of_array(x[i]) for x in leaves)) for i in range(n)]
    order = sorted(range(n), key=said.__getitem__)
    on = max(said.count(text) for text in set(said))
    result = np.empty(n, np.int64)
    result[order] = np.roll(order, -on)
    return result


def losses(
    model: Model,
    corpus: Corpus,
    draws: keys.Draws,
    seed: int,
    batch: int,
    used: tuple[jax.Device, ...],
    progress: Callable[[str, int, int], None],
) -> Losses:
    """The losses of tracks under their own conditions, under others', and of predicting nothing.

    Args:
        model: the checkpoint.
        corpus: from `chosen`; its masks count.
        draws: of each track.
        seed: of the draws.
        batch: draws on one device at a time.
        used: local devices.
        progress: told of tracks done.
    """
    examples = corpus.examples
    other = jax.tree.map(lambda x: x[others(examples.condition)], examples.condition)
    moved, rest = split_group(model, _GROUP)
    network, zero = (
        sweep.make_sweep(m, draws, seed, batch, used)
        for m in (model, model._replace(terms=_nothing(model)))
    )
    settings = {
        "own": (network, examples),
        "other": (network, examples._replace(condition=other)),
        "nothing": (zero, examples),
    }
    placed = sweep.place(network, moved, rest)  # on the devices of both
    found, n = {}, len(corpus.ids)
    for i, (name, (swept, given)) in enumerate(settings.items()):
        progress("preflight", i * n, len(settings) * n)
        here = sweep.displaced(swept, placed, jax.tree.map(jnp.zeros_like, moved))
        per_draw = sweep.losses(swept, placed, here, given, corpus.ids).draws
        found[name] = per_draw.astype(np.float64).mean(axis=(1, 2))
    progress("preflight", len(settings) * n, len(settings) * n)
    return Losses(**found)


def checks(
    corpus: Corpus, found: Losses, decoded: Sequence[np.ndarray], heard: Sequence[np.ndarray]
) -> list[Check]:
    """What the losses and the latents say.

    Args:
        corpus: from `chosen`.
        found: its losses.
        decoded: log-mels (frames, mels) that the VAE decodes from some tracks' latents, valid
            frames only; none if there is no VAE.
        heard: the pooled log-mels (2, mels) that were encoded of the same tracks; none if they
            were not kept.
    """
    return [
        _denoises(found),
        _conditioned(found),
        _members(corpus.members, found),
        _scaled(corpus),
        _frames(corpus),
        _decoded(decoded, heard),
    ]


def verdict(found: list[Check]) -> tuple[bool, str]:
    """Whether nothing speaks against the run, and the verdict in words."""
    failed = [check.name for check in found if check.passed is False]
    unsure = [check.name for check in found if check.passed is None]
    if failed:
        return False, f"Do not go on: {', '.join(failed)} failed."
    if unsure:
        return True, f"Nothing speaks against it; not decided: {', '.join(unsure)}."
    return True, "Checkpoint, corpus, scaling and conditions fit each other."


def _nothing(model: Model) -> Callable[..., Terms]:
    def terms(*given: Any) -> Terms:
        real = model.terms(*given)
        return real._replace(prediction=jnp.zeros_like(real.prediction))

    return terms


def _denoises(found: Losses) -> Check:
    gain = mean_interval(found.nothing - found.own)
    words = (
        f"loss {found.own.mean():.3f}, where predicting nothing has {found.nothing.mean():.3f}; "
        f"lower by {shown(gain, 3)} a track"
    )
    return Check("the checkpoint denoises these latents", decided(above(gain, 0.0)) == HOLDS, words)


def _conditioned(found: Losses) -> Check:
    rise = mean_interval(found.other - found.own)
    said = {HOLDS: True, FAILS: False}.get(decided(above(rise, 0.0)))
    words = f"under other tracks' captions the loss is higher by {shown(rise, 4)} a track"
    return Check("captions fit their tracks", said, words)


def _members(members: Bool[np.ndarray, " n"], found: Losses) -> Check:
    name = "members are known better than non-members"
    if members.all():
        return Check(name, None, "there are no non-members to compare with")
    difference = calibration.Difference(np.nan, np.nan)
    if members.any():
        difference = calibration.difference(found.own[members], found.own[~members])
    d, error = difference
    passed = None if not abs(d) > 2 * error else bool(d < 0)
    words = (
        f"loss {found.own[members].mean():.3f} on {members.sum()} members, "
        f"{found.own[~members].mean():.3f} on {(~members).sum()} non-members: they differ by "
        f"{d:+.2f} standard deviations (standard error {error:.2f})"
    )
    return Check(name, passed, words)


def _scaled(corpus: Corpus) -> Check:
    valid = np.asarray(corpus.examples.mask) > 0
    deviation = float(np.std(np.asarray(corpus.examples.latent)[valid], dtype=np.float64))
    words = f"standard deviation of the latents over valid frames: {deviation:.2f}"
    fits = fitting.USUAL[0] <= deviation <= fitting.USUAL[1]
    return Check("latents have the network's scale", fits, words)


def _frames(corpus: Corpus) -> Check:
    frames, window = np.asarray(corpus.examples.mask).sum(axis=1), corpus.examples.mask.shape[1]
    padded, members = frames < window, corpus.members
    words = (
        f"{frames.mean():.1f} of {window} latent frames are valid in the mean, {frames.min():.0f} "
        f"at least; {padded.sum()} of {len(frames)} tracks are padded"
    )
    d, error = calibration.difference(frames[members], frames[~members])
    if not math.isnan(d):
        words += f"; members and non-members differ by {d:+.2f} standard deviations"
    alike = math.isnan(d) or bool(abs(d) <= max(fitting.LEAST, 2 * error))
    return Check("members and non-members are as long", alike, words)


def _decoded(decoded: Sequence[np.ndarray], heard: Sequence[np.ndarray]) -> Check:
    name = "the VAE gives back what was encoded"
    if not (len(decoded) and len(heard)):
        return Check(name, None, "no VAE, or no log-mel kept with the corpus, to compare with")
    if not all(np.isfinite(x).all() for x in decoded):
        return Check(name, False, "a decoded log-mel is not finite")
    pairs = zip(decoded, heard, strict=True)
    each = [float(np.corrcoef(x.mean(axis=0), y[0])[0, 1]) for x, y in pairs]
    words = (
        f"mean spectra of {len(each)} windows before and after correlate at {np.mean(each):.3f} in "
        f"the mean, {min(each):.3f} at least"
    )
    return Check(name, bool(np.mean(each) > _ALIKE), words)


def as_json(found: list[Check]) -> Mapping[str, Any]:
    """The checks and the verdict as JSON keeps them."""
    passed, words = verdict(found)
    return {"verdict": words, "passed": passed, "checks": [check._asdict() for check in found]}
