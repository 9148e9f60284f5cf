"""The rise of each draw's loss that a sweep says of a query: of units, and averaged to tracks.

A track's result comes from its units: each draw is averaged over the captions of a window, and
then over the windows, *before* anything is scored. Scores, errors and calibration are so of tracks;
replicates stay apart, so that an error holds whatever the draws of a track's units share.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from tda_jax import store
from tda_jax.attribution import scores
from tda_jax.attribution.by_unlearning import Run
from tda_jax.attribution.settings import Settings
from tda_jax.attribution.units import Tracks

_FEWEST_BLOCKS = 3  # pairs of different blocks must be left without any one of them


class Rise(NamedTuple):
    """What the sweep says of a query, per draw; parts that the method does not give are None.

    Attributes:
        before: losses before unlearning.
        total: their rise; nan where the loss before is not finite.
        odd: the part of it that turns with the sign of the step.
        even: the other part.
        without: the rise without each block of query draws.
        curved: the second-order term that the rise leaves out.
    """

    before: Float[np.ndarray, "n R S"]
    total: Float64[np.ndarray, "n R S"]
    odd: Float64[np.ndarray, "n R S"] | None = None
    even: Float64[np.ndarray, "n R S"] | None = None
    without: Float64[np.ndarray, "n B S"] | None = None
    curved: Float64[np.ndarray, "n R S"] | None = None


class Averaged(NamedTuple):
    """Rises of tracks, and what they were averaged from.

    Attributes:
        rise: of each track.
        windows: the rise of each window, by track and then by start.
        track: the position of each window's track.
        start: of each window, in seconds; nan where it is not said.
        left_out: rows of the corpus that are in no mean.
    """

    rise: Rise
    windows: Float64[np.ndarray, "windows R S"]
    track: Int[np.ndarray, " windows"]
    start: Float64[np.ndarray, " windows"]
    left_out: Bool[np.ndarray, " rows"]


Before = Float[np.ndarray, "n R S"] | None


def read_before(run: Run) -> Before:
    """The losses before unlearning that the queries of a run share; "exact" only, else None.

    Raises:
        InputError: the store is not whole or damaged.
    """
    return None if run.before is None else store.read(run.before, ["loss"])["loss"]


def total_of_query(run: Run, query: str, before: Before) -> Rise:
    """The rises of a query without their parts, by as little reading as they take.

    Args:
        run: that the query is of.
        query: its id.
        before: from `read_before`.

    Raises:
        InputError: the store is not whole or damaged.
    """
    if before is not None:
        return Rise(before, scores.exact(before, store.read(run.sweeps[query], ["loss"])["loss"]))
    terms = store.read(run.sweeps[query], ["loss", "a", "b"])
    return at_rate(terms, run.directions[query][1])


def of_query(run: Run, query: str, settings: Settings, before: Before) -> Rise:
    """The rises of a query, a row for each row of the corpus.

    Args:
        run: that the query is of.
        query: its id.
        settings: that it was run with.
        before: from `read_before`.

    Raises:
        InputError: the store is not whole or damaged.
    """
    if before is not None:
        return total_of_query(run, query, before)
    terms = store.read(run.sweeps[query])
    _, rate = run.directions[query]
    without = scores.linearised(terms["a_without"], terms["b_without"], rate).total
    enough = settings.blocks >= _FEWEST_BLOCKS
    curved = np.float64(rate) ** 2 * terms["curved"] if settings.second_order else None
    return at_rate(terms, rate)._replace(without=without if enough else None, curved=curved)


def at_rate(terms: dict[str, np.ndarray], rate: float) -> Rise:
    """The linearised rise at a learning rate, from `loss`, `a` and `b` of a store."""
    parts = scores.linearised(terms["a"], terms["b"], rate)
    total = np.where(np.isfinite(terms["loss"]), parts.total, np.nan)
    return Rise(terms["loss"], total, *parts)


def averaged(rise: Rise, tracks: Tracks) -> Averaged:
    """Rises of tracks from those of their units.

    A unit with a draw that is not finite is left out of the means of its track, so that one bad
    caption or window does not cost the track; the mean is then over the captions that are left of
    each window, and over the windows that have one. A track with no unit left keeps them all, and
    so has no finite rise.

    Args:
        rise: a row for each row of the corpus.
        tracks: of the corpus.
    """
    usable = np.isfinite(rise.total).all(axis=(1, 2))
    some = np.zeros(len(tracks.ids), bool)
    some[tracks.of_unit[usable]] = True
    used = usable | ~some[tracks.of_unit]
    rows = np.lexsort((tracks.caption, tracks.window, tracks.of_unit))
    rows = rows[used[rows]]
    begin = _begins(tracks.of_unit[rows], tracks.window[rows])
    track, start = tracks.of_unit[rows][begin], tracks.start[rows][begin]
    of_track = _begins(track)

    def mean(values: np.ndarray | None) -> Any:
        return None if values is None else _means(_means(values[rows], begin), of_track)

    windows = _means(rise.total[rows], begin)
    return Averaged(Rise(*map(mean, rise)), windows, track, start, ~used)


def best_windows(
    found: Averaged, weights: Float64[np.ndarray, "tracks 10"]
) -> tuple[Float64[np.ndarray, " tracks"], Float64[np.ndarray, " tracks"]]:
    """The highest score of one window of each track, and where that window begins.

    Args:
        found: from `averaged`.
        weights: of the tracks, from `scores.bin_weights`; a window has those of its track.

    Returns:
        The scores, and starts in seconds, the first of equals; nan for a track without a score.
    """
    value = scores.weighted(found.windows, weights[found.track])
    falling = np.lexsort((-value, found.track))  # windows of a track stay together, nan last
    best = falling[_begins(found.track)]
    return value[best], np.where(np.isnan(value[best]), np.nan, found.start[best])


def why_unusable(rise: Rise, method: str) -> list[str | None]:
    """Why each row has a rise that is not finite, the reason that comes first; None if it has."""
    moved = "derivative along the query's direction"
    if method == "exact":
        moved = "loss after unlearning"
    lost, unknown = (~np.isfinite(x).all(axis=(1, 2)) for x in (rise.before, rise.total))
    return [
        "loss before unlearning is not finite"
        if no_loss
        else f"{moved} is not finite"
        if no_rise
        else None
        for no_loss, no_rise in zip(lost, unknown, strict=True)
    ]


def _begins(*keys: np.ndarray) -> Int[np.ndarray, " groups"]:
    """Where each group of rows begins that have the same keys and stand together."""
    changes = np.zeros(len(keys[0]), bool)
    changes[:1] = True
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changes)


def _means(values: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Means over groups of rows, in float64; a group of one is that row, to the last bit."""
    size = np.diff(np.append(begin, len(values)))
    sums = np.add.reduceat(values.astype(np.float64), begin, axis=0)
    return sums / size.reshape(-1, *[1] * (values.ndim - 1))
