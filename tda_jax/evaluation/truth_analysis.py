"""What retraining says of every method: chosen on one half of the subsets, told on the other.

A family is a rule with several settings: for each, the variant with the highest LDS on the choosing
half stands in the table, so that every rival is at its best. All figures of the table are of the
other half, and of all queries of all levels unless a part is named.

Whether a query that is a track was itself trained on would explain its loss better than anything
else. It is left out: its own score, and what is known of it, count as the mean of the other
members, and of its losses the mean over the subsets with it, or without, is taken away.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int

from tda_jax.baselines.contract import Passes
from tda_jax.baselines.similarity import condition_similarity, latent_similarity
from tda_jax.evaluation import bootstrap, comparison, datamodelling, discoveries, relations
from tda_jax.evaluation.ranking import Interval
from tda_jax.evaluation.truth import Level
from tda_jax.examples import Corpus

CALIPER = 0.5  # standard deviations of latent similarity, within which tracks are equally similar
FALSE_DISCOVERIES = 0.1  # the rate that is promised
ALL = "all"


class Found(NamedTuple):
    """What finding relatives and members comes to: means over queries, intervals over them."""

    relatives: Interval
    captions: Interval
    decoys: Interval
    called: float
    precision: float


class Row(NamedTuple):
    """A family's variant in the table.

    Attributes:
        family: its rule.
        variant: that was chosen.
        own: whether it is one of unlearning's, and may be the default.
        choices: how many variants it was chosen from.
        cost: passes through the network.
        parts: by part of the queries, its comparison with the default; a part of which scores that
            were given lack a query is missing.
        found: what its scores find.
    """

    family: str
    variant: str
    own: bool
    choices: int
    cost: Passes
    parts: dict[str, comparison.Row]
    found: Found


class Analysis(NamedTuple):
    """The whole comparison.

    Attributes:
        default: the variant of unlearning that was chosen.
        highest: the variant with the highest LDS of all on the choosing half.
        rows: of families.
        ceilings: by part of the queries.
        variants: of every variant its family, and LDS on both halves.
        subsets: of the choosing and of the reporting half.
        queries: by part.
        fewest: members that can pass the false-discovery rate, if all of them outrank the decoys.
    """

    default: str
    highest: str
    rows: list[Row]
    ceilings: dict[str, Interval]
    variants: dict[str, tuple[str, float, float]]
    subsets: tuple[int, int]
    queries: dict[str, int]
    fewest: int


class _Data(NamedTuple):
    """All levels together: scores are of all tracks."""

    names: list[str]
    scores: Float64[np.ndarray, "variants queries n"]
    losses: Float64[np.ndarray, "seeds subsets queries"]
    kept: Bool[np.ndarray, "subsets members"]
    covariates: Float64[np.ndarray, "3 queries members"]
    parts: dict[str, Int[np.ndarray, " part"]]
    level: Int[np.ndarray, " queries"]
    given: frozenset[str]
    related: list[relations.Relations]


def analyse(
    levels: Sequence[Level],
    corpus: Corpus,
    kept: Bool[np.ndarray, "subsets members"],
    family_of: Mapping[str, str],
    own: Collection[str],
    draws: int = 1000,
    seed: int = 0,
) -> Analysis:
    """Chooses, compares and counts.

    Args:
        levels: with the same variants.
        corpus: that was scored; `kept` is of its members in its order.
        kept: by the random subsets.
        family_of: variant -> family; a variant without one takes no part.
        own: families of unlearning that may be the default: rules, no controls.
        draws: of the bootstrap.
        seed: of the bootstrap and of the halves of the decoys.
    """
    data = _gathered(levels, corpus, kept, family_of)
    choosing, reporting = datamodelling.halves(len(kept))
    told = data.scores[:, :, corpus.members]
    means = {
        half: _means(told, kept[mask], _losses(data, mask).mean(axis=0))
        for half, mask in (("choosing", choosing), ("reporting", reporting))
    }
    best = _best(data.names, means["choosing"], family_of)
    default = max((best[f] for f in own if f in best), key=lambda v: _height(data, means, v))
    everywhere = [v for v in best.values() if _covers(data, v, data.parts[ALL])]
    highest = max(everywhere, key=lambda v: _height(data, means, v))
    rows = _rows(data, best, (default, highest), reporting, corpus, draws, seed)
    ceilings = {part: found[1] for part, found in rows.items()}
    cost = levels[0].scored.cost
    table = [
        Row(
            family,
            variant,
            family in own,
            sum(f == family for f in family_of.values()),
            cost[variant],
            {part: found[0][variant] for part, found in rows.items() if variant in found[0]},
            _found(data, data.names.index(variant), corpus, draws, seed),
        )
        for family, variant in best.items()
    ]
    variants = {
        name: (family_of[name], *(means[half][i] for half in ("choosing", "reporting")))
        for i, name in enumerate(data.names)
    }
    counts = {part: len(rows_) for part, rows_ in data.parts.items()}
    halves = int(choosing.sum()), int(reporting.sum())
    fewest = discoveries.fewest(corpus.members, FALSE_DISCOVERIES)
    return Analysis(default, highest, table, ceilings, variants, halves, counts, fewest)


def _height(data: _Data, means: Mapping[str, list[float]], variant: str) -> float:
    mean = means["choosing"][data.names.index(variant)]
    return -np.inf if np.isnan(mean) else mean


def _means(told: np.ndarray, kept: np.ndarray, losses: np.ndarray) -> list[float]:
    """The mean LDS of each variant; nothing told of a query is 0, as by chance."""
    each = datamodelling.lds(datamodelling.predicted(told, kept), losses)
    unknown = np.isnan(told).all(axis=2)  # scores that were given for other queries only
    each = np.where(np.isnan(each) & ~unknown, 0.0, each)
    return [bootstrap.mean(row) for row in each]


def _losses(data: _Data, subsets: np.ndarray) -> np.ndarray:
    """Losses under some subsets, without what the query's own membership does: (K, S, Q)."""
    losses, kept = data.losses[:, subsets].copy(), data.kept[subsets]
    for q, r in enumerate(data.related):
        itself = r.query[r.members]
        if itself.any():
            with_it = kept[:, itself][:, 0]
            for group in (with_it, ~with_it):
                losses[:, group, q] -= losses[:, group, q].mean(axis=1, keepdims=True)
    return losses


def _best(
    names: Sequence[str], means: Sequence[float], family_of: Mapping[str, str]
) -> dict[str, str]:
    """The variant of each family with the highest mean, families in their order."""
    found: dict[str, tuple[float, str]] = {}
    for name, mean in zip(names, means, strict=True):
        height = -np.inf if np.isnan(mean) else mean
        family = family_of[name]
        if family not in found or height > found[family][0]:
            found[family] = height, name
    order = {family: i for i, family in enumerate(dict.fromkeys(family_of.values()))}
    return {f: found[f][1] for f in sorted(found, key=lambda f: order[f])}


def _gathered(
    levels: Sequence[Level], corpus: Corpus, kept: np.ndarray, family_of: Mapping[str, str]
) -> _Data:
    names = [name for name in family_of if name in levels[0].scored.scores]
    scores = np.concatenate(
        [np.stack([level.scored.scores[name] for name in names]) for level in levels], axis=1
    )
    covariates, related = [], []
    parts: dict[str, list[int]] = {ALL: []}
    kinds = {entry["kind"] for level in levels for entry in level.queries.metadata}
    start, of_level = 0, []
    for number, level in enumerate(levels):
        alike = latent_similarity(level.queries.examples, corpus.examples)
        said = condition_similarity(level.queries.examples, corpus.examples)
        own = [_relations(level.queries, i, corpus, alike[i]) for i in range(len(alike))]
        work = np.stack([_shares(level.queries, i, corpus, "work") for i in range(len(alike))])
        covariates.append(np.stack([alike, said, work.astype(float)])[:, :, corpus.members])
        related += own
        for i, entry in enumerate(level.queries.metadata):
            in_level = [f"{level.updates} updates"] if len(levels) > 1 else []
            of_kind = [f"{entry['kind']} queries"] if len(kinds) > 1 else []
            for part in (ALL, *in_level, *of_kind):
                parts.setdefault(part, []).append(start + i)
        start += len(alike)
        of_level += [number] * len(alike)
    beside = np.concatenate(covariates, axis=1)
    for q, r in enumerate(related):
        scores[:, q, r.query] = np.nan  # counts as the mean of the others, whatever their zero is
        itself = r.query[r.members]
        beside[:, q, itself] = beside[:, q, ~itself].mean(axis=1, keepdims=True)
    return _Data(
        names,
        scores,
        np.concatenate([level.losses for level in levels], axis=2),
        kept,
        beside,
        {part: np.array(rows) for part, rows in parts.items()},
        np.array(of_level),
        frozenset(n for n in names if np.isnan(levels[0].scored.cost[n].query)),
        related,
    )


def _relations(queries: Corpus, i: int, corpus: Corpus, alike: np.ndarray) -> relations.Relations:
    itself = np.array([name == queries.ids[i] for name in corpus.ids])
    shares = [_shares(queries, i, corpus, factor) for factor in ("work", "caption")]
    return relations.related(itself, corpus.members, *shares, alike)


def _shares(queries: Corpus, i: int, corpus: Corpus, factor: str) -> np.ndarray:
    """Which tracks share a query's work or caption."""
    value = queries.metadata[i][factor]
    return np.array([entry[factor] == value for entry in corpus.metadata])


def _rows(
    data: _Data,
    best: Mapping[str, str],
    references: tuple[str, str],
    reporting: np.ndarray,
    corpus: Corpus,
    draws: int,
    seed: int,
) -> dict[str, tuple[dict[str, comparison.Row], Interval]]:
    """By part of the queries, the chosen variants held against default and highest; the ceiling."""
    found, losses = {}, _losses(data, reporting)
    for part, queries in data.parts.items():
        names = [name for name in dict.fromkeys(best.values()) if _covers(data, name, queries)]
        rows = [data.names.index(name) for name in names]
        scores = data.scores[rows][:, queries][:, :, corpus.members]
        table, top = comparison.compare(
            names,
            scores,
            data.kept[reporting],
            losses[:, :, queries],
            data.covariates[:, queries],
            references[0],
            data.level[queries],
            draws,
            seed,
            references[1],
        )
        found[part] = dict(zip(names, table, strict=True)), top
    return found


def _covers(data: _Data, name: str, queries: np.ndarray) -> bool:
    """Whether a variant has a score for some track of every query."""
    scores = data.scores[data.names.index(name)][queries]
    return not np.isnan(scores).all(axis=1).any() or name not in data.given


def _found(data: _Data, row: int, corpus: Corpus, draws: int, seed: int) -> Found:
    """What one variant's scores find, over all queries."""
    scores = data.scores[row].copy()
    each = [
        relations.metrics(x, r, CALIPER * float(np.nanstd(r.likeness)))
        for x, r in zip(scores, data.related, strict=True)
    ]
    for x, r in zip(scores, data.related, strict=True):
        x[r.query] = np.nan  # a query that is a track is no discovery of its own
    queries = bootstrap.multiplicities(len(scores), draws, seed, "queries")

    def over(name: str) -> Interval:
        values = np.array([one[name] for one in each])
        drawn = bootstrap.both(np.broadcast_to(values, queries.shape), queries)
        return bootstrap.interval(bootstrap.mean(values), drawn)

    called = discoveries.precision(scores, corpus.members, FALSE_DISCOVERIES, seed)
    total, false = float(called.called.sum()), float(called.false.sum())
    share = 1 - min(1.0, false / total) if total else float("nan")
    areas = [over(name) for name in ("relatives", "captions", "decoys")]
    return Found(*areas, float(called.called.mean()), share)
