"""What a run found, as columns with a row for each track: scores, their errors, what they mean.

Everything is read from the stores of a run, so no column costs another pass over the model. Rows
are sorted by score, highest first; equal scores by id; tracks without a score come last.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from tda_jax import store
from tda_jax.attribution import calibration, scores, unlearn
from tda_jax.attribution.by_unlearning import Run
from tda_jax.attribution.settings import Settings
from tda_jax.errors import InputError
from tda_jax.examples import Corpus

_FEWEST_BLOCKS = 3  # pairs of different blocks must be left without any one of them


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

        order: (n,), where the track of each row stands in the corpus.
        unscored: (id, reason) of tracks that have no score, by id.
        own: the id of the track that the query itself is, or None.
    """

    columns: dict[str, Any]
    order: Int[np.ndarray, " n"]
    unscored: tuple[tuple[str, str], ...]
    own: str | None


class _Rise(NamedTuple):
    """What the sweep says of a query, per draw; parts that the method does not give are None."""

    before: Float[np.ndarray, "n R S"]
    total: Float64[np.ndarray, "n R S"]
    odd: Float64[np.ndarray, "n R S"] | None = None
    even: Float64[np.ndarray, "n R S"] | None = None
    without: Float64[np.ndarray, "n B S"] | None = None
    curved: Float64[np.ndarray, "n R S"] | None = None


def tables(run: Run, corpus: Corpus, settings: Settings) -> dict[str, Table]:
    """The tables of all queries of a run.

    Args:
        run: from `by_unlearning.run`.
        corpus: that it was run on.
        settings: that it was run with. Another `weighting` needs no other run.

    Returns:
        By query id, in the order of the run; not of queries that were skipped.

    Raises:
        InputError: a store is of other tracks, not whole or damaged; an unknown weighting.
    """
    found = {query: _columns(run, query, corpus, settings) for query in run.sweeps}
    if not found:
        return {}
    together = np.stack([columns["score"] for columns, _ in found.values()])
    distinct = calibration.minus_common(together)
    return {
        query: _sorted({**columns, "distinct": row}, corpus, unscored, run.own.get(query))
        for (query, (columns, unscored)), row in zip(found.items(), distinct, strict=True)
    }


def scores_at_rates(
    run: Run, settings: Settings, query: str, rates: Sequence[float]
) -> Float64[np.ndarray, "rates n"]:
    """The scores of one query at each of several learning rates, without another pass.

    Args:
        run: of the method "linearised".
        settings: that it was run with.
        query: its id.
        rates: learning rates; a negative one learns the query instead of forgetting it.

    Returns:
        (rates, n), in the order of the corpus; nan for tracks without a score.

    Raises:
        InputError: the run is of another method, or has no such query; see `tables`.
    """
    if settings.method != "linearised":
        raise InputError(
            f"method = {settings.method!r} has the scores of one learning rate only; run with "
            "method = 'linearised'"
        )
    kept = _of_query(run.sweeps, query)
    terms = store.read(kept, ["loss", "a", "b"])
    each = [
        scores.score(
            _known(scores.linearised(terms["a"], terms["b"], rate).total, terms["loss"]),
            settings.weighting,
            terms["loss"],
        ).value
        for rate in rates
    ]
    return np.stack(each) if each else np.empty((0, len(kept.ids)))


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


def frame_rises(run: Run, query: str) -> Float64[np.ndarray, "n frames"]:
    """The rise of each latent frame's squared error: which part of a track supports the query.

    Args:
        run: of the method "exact", with `frames` in its settings.
        query: its id.

    Returns:
        (n, frames), in the order of the corpus, averaged over draws, padding included.

    Raises:
        InputError: the run kept no losses per frame, or has no such query.
    """
    kept = _of_query(run.sweeps, query)
    if run.before is None or "frames" not in kept.arrays:
        raise InputError("no losses per frame were kept; run with method = 'exact', frames = True")
    before, after = (store.read(s, ["frames"])["frames"] for s in (run.before, kept))
    return after.astype(np.float64) - before.astype(np.float64)


def _columns(
    run: Run, query: str, corpus: Corpus, settings: Settings
) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
    """The columns of one query in the order of the corpus, and the tracks without a score."""
    if run.sweeps[query].ids != corpus.ids:
        raise InputError(
            f"{run.sweeps[query].path}: is of other tracks than the corpus, or in another order; "
            "give the corpus that the run was made with"
        )
    read = _linearised if settings.method == "linearised" else _exact
    with np.errstate(invalid="ignore"):  # what is not finite becomes nan, and is reported
        rise = read(run, query, settings)
        weights = scores.bin_weights(rise.total, settings.weighting, rise.before)
        score = scores.score(rise.total, settings.weighting, rise.before)
        columns = {
            "score": score.value,
            "standard_error": score.standard_error,
            "direction_error": _direction_error(rise.without, weights),
            **_calibrated(score.value, corpus.members, run.own.get(query)),
            **_parts(rise, weights),
            **_losses(rise),
        }
    return columns, _unscored(corpus.ids, rise, score.value, settings)


def _calibrated(score: np.ndarray, members: np.ndarray, own: int | None) -> dict[str, np.ndarray]:
    """P- and q-values of the tracks, held against others than the query itself."""
    others = score.copy()
    if own is not None:
        others[own] = np.nan
    p = calibration.empirical_p_values(others, members)
    if own is not None:
        p[own] = calibration.empirical_p_values(score, members)[own]
    return {"p_value": p, "q_value": calibration.q_values(others, members)}


def _parts(rise: _Rise, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The parts of the score under its own weights; nan where the method does not tell them."""
    parts = {"odd": rise.odd, "even": rise.even}
    parts |= {} if rise.curved is None else {"second_order": rise.curved}
    unknown = np.full(len(weights), np.nan)
    return {
        name: unknown if values is None else scores.weighted(values, weights)
        for name, values in parts.items()
    }


def _losses(rise: _Rise) -> dict[str, np.ndarray]:
    """Mean losses before and after, each draw counted alike; nan if one is not finite."""
    before = np.asarray(rise.before, np.float64).mean(axis=(1, 2))
    after = before + rise.total.mean(axis=(1, 2))
    losses = {"loss_before": before, "loss_after": after}
    return {name: np.where(np.isfinite(x), x, np.nan) for name, x in losses.items()}


def _linearised(run: Run, query: str, settings: Settings) -> _Rise:
    terms = store.read(run.sweeps[query])
    _, rate = run.directions[query]
    parts = scores.linearised(terms["a"], terms["b"], rate)
    without = scores.linearised(terms["a_without"], terms["b_without"], rate).total
    enough = settings.blocks >= _FEWEST_BLOCKS
    curved = np.float64(rate) ** 2 * terms["curved"] if settings.second_order else None
    total = _known(parts.total, terms["loss"])
    return _Rise(terms["loss"], total, *parts, without if enough else None, curved)


def _exact(run: Run, query: str, settings: Settings) -> _Rise:
    before, after = (store.read(s, ["loss"])["loss"] for s in (run.before, run.sweeps[query]))
    return _Rise(before, scores.exact(before, after))


def _known(total: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Rises, nan where the loss before is not finite: no track without a loss has a score."""
    return np.where(np.isfinite(before), total, np.nan)


def _direction_error(without: np.ndarray | None, weights: np.ndarray) -> np.ndarray:
    """The jackknife over blocks, under the weights of the score itself."""
    if without is None:
        return np.full(len(weights), np.nan)
    each = [scores.weighted(without[:, k, None], weights) for k in range(without.shape[1])]
    return scores.jackknife_standard_error(np.stack(each))


def _unscored(
    ids: Sequence[str], rise: _Rise, score: np.ndarray, settings: Settings
) -> list[tuple[str, str]]:
    """The tracks without a score, each with the reason that comes first."""
    no_loss = set(scores.not_finite(ids, rise.before))
    no_rise = set(scores.not_finite(ids, rise.total))
    moved = "derivative along the query's direction"
    if settings.method == "exact":
        moved = "loss after unlearning"
    weighted = {
        "ratio": "loss before is 0 in a timestep bin, so it has no ratio",
        "standardised": "all tracks have the same rise in every timestep bin",
    }

    def reason(name: str) -> str:
        if name in no_loss:
            return "loss before unlearning is not finite"
        return f"{moved} is not finite" if name in no_rise else weighted[settings.weighting]

    return [(ids[i], reason(ids[i])) for i in np.flatnonzero(np.isnan(score))]


_ORDER = ("rank", "id", "score", "standard_error", "direction_error", "p_value", "q_value")
_ORDER += ("distinct", "odd", "even", "second_order", "loss_before", "loss_after", "member")


def _sorted(
    columns: dict[str, np.ndarray],
    corpus: Corpus,
    unscored: list[tuple[str, str]],
    own: int | None,
) -> Table:
    score = columns["score"]
    unknown = np.isnan(score)
    falling = np.where(unknown, 0.0, -score)
    order = sorted(range(len(score)), key=lambda i: (unknown[i], falling[i], corpus.ids[i]))
    order = np.asarray(order, np.int64)
    ranked = corpus.members & ~unknown
    ranks = np.cumsum(ranked[order])
    rows = {name: values[order] for name, values in columns.items()}
    rows["rank"] = [int(r) if ranked[i] else None for i, r in zip(order, ranks, strict=True)]
    rows["id"] = [corpus.ids[i] for i in order]
    rows["member"] = corpus.members[order]
    kept = {name: rows[name] for name in _ORDER if name in rows}
    return Table(kept, order, tuple(unscored), None if own is None else corpus.ids[own])


def _of_query(by_query: Any, query: str) -> Any:
    if query not in by_query:
        raise InputError(f"the run has no query {query!r}; it has {sorted(by_query)[:5]}")
    return by_query[query]
