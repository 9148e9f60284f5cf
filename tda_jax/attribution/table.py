"""What a run found, as columns with a row for each track: scores, their errors, what they mean.

A row of the corpus may be one window and one caption of a track (`units`); a track's result is of
their mean (`rises`). Everything is read from the stores of a run, so no column costs another pass
over the model. Rows are sorted by score, highest first; equal scores by id; tracks without a score
come last.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from tda_jax import store
from tda_jax.attribution import calibration, rises, scores, unlearn
from tda_jax.attribution.by_unlearning import Run
from tda_jax.attribution.rises import Rise
from tda_jax.attribution.settings import Settings
from tda_jax.attribution.units import Tracks, tracks_of
from tda_jax.errors import InputError
from tda_jax.examples import Corpus


class Table(NamedTuple):
    """The results of one query, a row for each track.

    Attributes:
        columns: by name, in the order of the rows:

            rank                1 for the member with the highest score; None for a decoy, which
                                has no rank, and for a track without a score
            id                  of the track
            score               higher is more support; nan for a track in `unscored`
            standard_error      of the score, from the sweep's draws
            direction_error     of the score, from the noise in the query's direction: a jackknife
                                over blocks of query draws ("linearised" of 3 blocks or more)
            p_value             how often a decoy scores as high; the query itself is no decoy
            q_value             false-discovery rate at which the member would be let in; nan for
                                the query itself, which is no discovery
            distinct            score minus its median over the other queries, over their MAD
            odd, even           the parts of the score: learning rate · a and learning rate² · b
                                ("linearised" only)
            second_order        learning rate² · curved, which the score leaves out; there only if
                                the settings ask for it
            loss_before         mean loss over the draws, before unlearning
            loss_after          the same after it, as computed or as the quadratic predicts
            member              False for a decoy
            score_max           the highest score of one window of the track, under the same
                                weights; of several windows it is higher by chance, too, so compare
                                it among tracks of as many. There only if some track has several
            max_start           where that window begins, in seconds; there with `score_max`

        order: (n,), where the track of each row stands in `units.tracks_of` of the corpus; in a
            corpus of whole tracks that is where it stands in the corpus.
        unscored: (id, reason) of tracks that have no score, by id.
        own: the id of the track that the query itself is or is a part of, or None.
        left_out: (id, reason) of rows of the corpus that could not be used and are left out of the
            mean of their track, which has a score from its other units.
    """

    columns: dict[str, Any]
    order: Int[np.ndarray, " n"]
    unscored: tuple[tuple[str, str], ...]
    own: str | None
    left_out: tuple[tuple[str, str], ...] = ()


def tables(run: Run, corpus: Corpus, settings: Settings) -> Iterator[tuple[str, Table]]:
    """The tables of all queries of a run, one after the other.

    Memory holds one table, and beside it three numbers for each query and track where there are
    queries enough for `distinct`; the sweeps are then read twice.

    Args:
        run: from `by_unlearning.run`.
        corpus: that it was run on.
        settings: that it was run with. Another `weighting` needs no other run.

    Returns:
        Pairs of a query's id and its table, in the order of the run; not of queries that were
        skipped.

    Raises:
        InputError: a store is of other tracks, not whole or damaged; an unknown weighting; rows of
            the corpus cannot be units of one track. Of the stores themselves, when it comes to
            them.
    """
    for query in run.sweeps:
        _refuse_other(run, query, corpus)
    return _each(run, corpus, tracks_of(corpus), settings)


def _each(
    run: Run, corpus: Corpus, tracks: Tracks, settings: Settings
) -> Iterator[tuple[str, Table]]:
    before = rises.read_before(run)
    distinct = np.full((len(run.sweeps), len(tracks.ids)), np.nan)
    if len(run.sweeps) > calibration.FEWEST_REFERENCES:
        for row, query in zip(distinct, run.sweeps, strict=True):
            row[:] = _score_alone(run, query, tracks, settings, before)
        distinct = calibration.minus_common(distinct)
    for query, row in zip(run.sweeps, distinct, strict=True):
        found = _columns(run, query, corpus, tracks, settings, before)
        yield query, _sorted(found._replace(columns={**found.columns, "distinct": row}), tracks)


def scores_at_rates(
    run: Run, corpus: Corpus, settings: Settings, query: str, rates: Sequence[float]
) -> Float64[np.ndarray, "rates n"]:
    """The scores of one query at each of several learning rates, without another pass.

    Args:
        run: of the method "linearised".
        corpus: that it was run on.
        settings: that it was run with.
        query: its id.
        rates: learning rates; a negative one learns the query instead of forgetting it.

    Returns:
        (rates, n), in the order of `units.tracks_of` the corpus; nan for tracks without a score.

    Raises:
        InputError: the run is of another method, or has no such query; see `tables`.
    """
    if settings.method != "linearised":
        raise InputError(
            f"method = {settings.method!r} has the scores of one learning rate only; run with "
            "method = 'linearised'"
        )
    terms = store.read(_of_query(run.sweeps, query), ["loss", "a", "b"])
    _refuse_other(run, query, corpus)
    tracks = tracks_of(corpus)
    result = np.empty((len(rates), len(tracks.ids)))
    for i, rate in enumerate(rates):
        rise = rises.averaged(rises.at_rate(terms, rate), tracks).rise
        result[i] = _score(rise, settings).value
    return result


def rates_for_rises(run: Run, query: str, rises: Sequence[float]) -> list[float]:
    """The learning rates at which a query's own loss is predicted to rise by given shares ρ.

    Args:
        run: from `by_unlearning.run`.
        query: its id.
        rises: each above 0.

    Raises:
        InputError: the run has no such query.
        UnusableQuery: no learning rate gives such a rise.
    """
    own, _ = _of_query(run.directions, query)
    return [unlearn.rate_for_rise(own.a, own.b, own.loss, rise) for rise in rises]


def frame_rises(run: Run, query: str) -> Float64[np.ndarray, "rows frames"]:
    """The rise of each latent frame's squared error: which part of a track supports the query.

    A row for each row of the corpus. Windows are of different music, so their frames are not
    averaged together.

    Args:
        run: of the method "exact", with `frames` in its settings.
        query: its id.

    Returns:
        (rows, frames), in the order of the corpus, averaged over draws, padding included.

    Raises:
        InputError: the run kept no losses per frame, or has no such query.
    """
    kept = _of_query(run.sweeps, query)
    if run.before is None or "frames" not in kept.arrays:
        raise InputError("no losses per frame were kept; run with method = 'exact', frames = True")
    before, after = (store.read(s, ["frames"])["frames"] for s in (run.before, kept))
    return after.astype(np.float64) - before.astype(np.float64)


def _score_alone(
    run: Run, query: str, tracks: Tracks, settings: Settings, before: rises.Before
) -> np.ndarray:
    """The score of each track; of the draws nothing is held once it is known."""
    with np.errstate(invalid="ignore"):
        found = rises.averaged(rises.total_of_query(run, query, before), tracks)
    return _score(found.rise, settings).value


class _Found(NamedTuple):
    """A table before it is sorted: rows in the order of the tracks."""

    columns: dict[str, np.ndarray]
    unscored: list[tuple[str, str]]
    left_out: list[tuple[str, str]]
    own: int | None


def _score(rise: Rise, settings: Settings) -> scores.Score:
    with np.errstate(invalid="ignore"):
        return scores.score(rise.total, settings.weighting, rise.before)


def _columns(
    run: Run, query: str, corpus: Corpus, tracks: Tracks, settings: Settings, before: rises.Before
) -> _Found:
    own = None if query not in run.own else int(tracks.of_unit[run.own[query]])
    with np.errstate(invalid="ignore"):  # what is not finite becomes nan, and is reported
        units = rises.of_query(run, query, settings, before)
        found = rises.averaged(units, tracks)
        rise = found.rise
        score = _score(rise, settings)
        weights = scores.bin_weights(rise.total, settings.weighting, rise.before)
        columns = {
            "score": score.value,
            "standard_error": score.standard_error,
            "direction_error": _direction_error(rise.without, weights),
            **_calibrated(score.value, tracks.members, own),
            **_parts(rise, weights),
            **_losses(rise),
        }
        if tracks.window.any():
            columns["score_max"], columns["max_start"] = rises.best_windows(found, weights)
    unscored = _named(tracks.ids, np.isnan(score.value), rise, settings)
    return _Found(columns, unscored, _named(corpus.ids, found.left_out, units, settings), own)


def _calibrated(score: np.ndarray, members: np.ndarray, own: int | None) -> dict[str, np.ndarray]:
    """P- and q-values of the tracks, held against others than the query itself."""
    others = score.copy()
    if own is not None:
        others[own] = np.nan
    p = calibration.empirical_p_values(others, members)
    if own is not None:
        p[own] = calibration.empirical_p_values(score, members)[own]
    return {"p_value": p, "q_value": calibration.q_values(others, members)}


def _parts(rise: Rise, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of the score under its own weights; nan where the method does not tell them."""
    parts = {"odd": rise.odd, "even": rise.even}
    parts |= {} if rise.curved is None else {"second_order": rise.curved}
    unknown = np.full(len(weights), np.nan)
    return {
        name: unknown if values is None else scores.weighted(values, weights)
        for name, values in parts.items()
    }


def _losses(rise: Rise) -> dict[str, np.ndarray]:
    """Mean losses before and after, each draw counted alike; nan if one is not finite."""
    before = np.asarray(rise.before, np.float64).mean(axis=(1, 2))
    after = before + rise.total.mean(axis=(1, 2))
    losses = {"loss_before": before, "loss_after": after}
    return {name: np.where(np.isfinite(x), x, np.nan) for name, x in losses.items()}


def _direction_error(without: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
    """The jackknife over blocks, under the weights of the score itself."""
    if without is None:
        return np.full(len(weights), np.nan)
    each = [scores.weighted(without[:, k, None], weights) for k in range(without.shape[1])]
    return scores.jackknife_standard_error(np.stack(each))


def _named(
    ids: Sequence[str], chosen: np.ndarray, rise: Rise, settings: Settings
) -> list[tuple[str, str]]:
    """Tracks or units that cannot be used, by id, each with the reason that comes first."""
    weighted = {
        "ratio": "loss before is 0 in a timestep bin, so it has no ratio",
        "standardised": "all tracks have the same rise in every timestep bin",
    }
    why = rises.why_unusable(rise, settings.method)
    return sorted((ids[i], why[i] or weighted[settings.weighting]) for i in np.flatnonzero(chosen))


_ORDER = ("rank", "id", "score", "standard_error", "direction_error", "p_value", "q_value")
_ORDER += ("distinct", "odd", "even", "second_order", "loss_before", "loss_after", "member")
_ORDER += ("score_max", "max_start")


def _sorted(found: _Found, tracks: Tracks) -> Table:
    score = found.columns["score"]
    unknown = np.isnan(score)
    falling = np.where(unknown, 0.0, -score)
    order = sorted(range(len(score)), key=lambda i: (unknown[i], falling[i], tracks.ids[i]))
    order = np.asarray(order, np.int64)
    ranked = tracks.members & ~unknown
    ranks = np.cumsum(ranked[order])
    rows = {name: values[order] for name, values in found.columns.items()}
    rows["rank"] = [int(r) if ranked[i] else None for i, r in zip(order, ranks, strict=True)]
    rows["id"] = [tracks.ids[i] for i in order]
    rows["member"] = tracks.members[order]
    kept = {name: rows[name] for name in _ORDER if name in rows}
    own = None if found.own is None else tracks.ids[found.own]
    return Table(kept, order, tuple(found.unscored), own, tuple(found.left_out))


def _refuse_other(run: Run, query: str, corpus: Corpus) -> None:
    if run.sweeps[query].ids != corpus.ids:
        raise InputError(
            f"{run.sweeps[query].path}: is of other tracks than the corpus, or in another order; "
            "give the corpus that the run was made with"
        )


def _of_query(by_query: Any, query: str) -> Any:
    if query not in by_query:
        raise InputError(f"the run has no query {query!r}; it has {sorted(by_query)[:5]}")
    return by_query[query]
