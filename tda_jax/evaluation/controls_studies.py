"""What is read off the arrays of one seed, as records: one study a function."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from tda_jax import examples
from tda_jax.attribution import calibration, scores
from tda_jax.evaluation import controls_scores as methods
from tda_jax.evaluation.controls_plan import Plan
from tda_jax.evaluation.ranking import spearman, top_overlap
from tda_jax.evaluation.records import Key, Record
from tda_jax.evaluation.relations import Relations, metrics, relations
from tda_jax.keys import BINS

Arrays = Mapping[str, np.ndarray]

WEIGHTED = ("exact", "linearised")  # methods that every weighting of the timestep bins is tried on
_TOP = 10


class Seed(NamedTuple):
    """What the records of one seed are read with.

    Attributes:
        seed: its number.
        plan: sizes.
        corpus: members and decoys.
        before: the losses of every track at the main level, (n, R, S).
        relations: by query, of all tracks.
        constant: by query, `controls_scores.constant`.
    """

    seed: int
    plan: Plan
    corpus: examples.Corpus
    before: Float64[np.ndarray, "n R S"]
    relations: dict[str, Relations]
    constant: dict[str, dict[str, np.ndarray]]

    def record(self, query: str, value: float, *key: str, **parts: str) -> Record:
        """A record of this seed."""
        return Record(Key(*key, **parts), self.seed, query, float(value))


def of_seed(
    seed: int, plan: Plan, corpus: examples.Corpus, before: np.ndarray, queries: Sequence[str]
) -> Seed:
    """Gathers what the studies need of a seed."""
    constant = {q: methods.constant(corpus, q, before, seed) for q in queries}
    like = "latent similarity"
    relation = {q: relations(corpus, q, constant[q][like]) for q in queries}
    return Seed(seed, plan, corpus, before.astype(np.float64), relation, constant)


def steps(s: Seed, arrays: Mapping[str, Arrays]) -> Iterator[Record]:
    """Every method at every step, for each group; the arrays of `controls_stages.steps` by query.

    Methods are uniform over timestep bins; "exact, ratio" and its like are of other weightings,
    "exact, minus common" has taken out what a track scores for the other queries.
    """
    for query, found in s.constant.items():
        for method, score in found.items():
            yield from _metrics(s, query, score, "steps", method=method)
    for group, name in enumerate(s.plan.groups):
        for step, step_name in enumerate(methods.step_names(s.plan)):
            key = {"group": name, "step": step_name}
            table: dict[str, dict[str, np.ndarray]] = {}
            for query, found in arrays.items():
                rise = methods.rises(found, s.before, s.plan, group, step)
                table[query] = dict(_scores(rise, s.before))
                yield from _own(s, query, found, group, step, key)
                yield from _shape(s, query, rise, table[query], key)
            for method in WEIGHTED:
                common = calibration.minus_common(np.stack([v[method] for v in table.values()]))
                for query, score in zip(table, common, strict=True):
                    table[query][f"{method}, minus common"] = score
            for query, by_method in table.items():
                for method, score in by_method.items():
                    yield from _metrics(s, query, score, "steps", method=method, **key)


def _scores(rise: Mapping[str, np.ndarray], before: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for method, values in rise.items():
        yield method, scores.score(values).value
    for method in WEIGHTED:
        for weighting in scores.WEIGHTINGS[1:]:
            yield f"{method}, {weighting}", scores.score(rise[method], weighting, before).value


def _metrics(s: Seed, query: str, score: np.ndarray, study: str, **key: str) -> Iterator[Record]:
    for metric, value in metrics(score, s.relations[query], s.plan.caliper).items():
        yield s.record(query, value, study, metric, **key)


def _own(
    s: Seed, query: str, arrays: Arrays, group: int, step: int, key: Mapping[str, str]
) -> Iterator[Record]:
    """The query's own response: predicted, and exact; and the learning rate."""
    direction = 2 * group
    rate = methods.rate_of(arrays, s.plan, direction, step)
    predicted = rate * arrays["own_a"][direction] + rate**2 * arrays["own_b"][direction]
    share = float(predicted / arrays["own_loss"])
    start, end = (float(x.mean(dtype=np.float64)) for x in _own_pair(arrays, group, step))
    yield s.record(query, share, "steps", "own_rise", "linearised", **key)
    yield s.record(query, end / start - 1, "steps", "own_rise", "exact", **key)
    yield s.record(query, rate, "steps", "rate", **key)


def _own_pair(arrays: Arrays, group: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    return arrays["own_before"], arrays["own_after"][group, step]


def _shape(
    s: Seed,
    query: str,
    rise: Mapping[str, np.ndarray],
    score: Mapping[str, np.ndarray],
    key: Mapping[str, str],
) -> Iterator[Record]:
    """How scores are spread: signs, concentration, timestep bins, agreement with exact ones."""
    r = s.relations[query]
    others, decoys = r.members & ~r.query, ~r.members
    for method in WEIGHTED:
        x = score[method]
        for who, rows in (("members", others), ("decoys", decoys)):
            known = x[rows][~np.isnan(x[rows])]  # a track without a score is not below zero
            positive = (known > 0).mean() if len(known) else np.nan
            yield s.record(query, positive, "steps", f"positive_{who}", method, **key)
        yield s.record(query, _top_share(x[others]), "steps", "top_tenth", method, **key)
        share = np.abs(scores.per_bin(rise[method])[others])
        for b, value in enumerate(share.mean(0) / share.mean(0).sum()):
            yield s.record(query, value, "bins", f"rise_bin{b}", method, **key)
    for method in ("linearised", "odd", "even"):
        agreement = spearman(score["exact"][~r.query], score[method][~r.query])
        yield s.record(query, agreement, "steps", "agreement", method, **key)
    broken = np.isnan(score["exact"]).mean()
    yield s.record(query, broken, "steps", "not_finite", "exact", **key)


def _top_share(x: np.ndarray) -> float:
    """The share of the positive scores' sum that the highest tenth of the tracks have."""
    ordered = np.sort(np.maximum(x[~np.isnan(x)], 0))[::-1]
    total = ordered.sum()
    return float(ordered[: max(1, len(ordered) // 10)].sum() / total) if total > 0 else np.nan


def levels(s: Seed, before: Mapping[int, np.ndarray]) -> Iterator[Record]:
    """Mean losses at each level by split, how members and decoys differ, and the loss by bin."""
    split = np.array([entry["split"] for entry in s.corpus.metadata])
    for updates, loss in before.items():
        mean = loss.mean((1, 2), dtype=np.float64)
        for name in dict.fromkeys(split):
            yield s.record(
                "", mean[split == name].mean(), "levels", "loss", name, level=f"{updates}"
            )
        per_bin = scores.per_bin(loss)[s.corpus.members].mean(0)
        for b, value in enumerate(per_bin / per_bin.sum()):
            yield s.record("", value, "bins", f"loss_bin{b}", "loss before", level=f"{updates}")
        for factor, d in calibration.decoy_match(s.corpus, mean).items():
            yield s.record("", d.standardised, "levels", "difference", factor, level=f"{updates}")


def quadratic(s: Seed, query: str, updates: int, arrays: Arrays) -> Iterator[Record]:
    """The quadratic against exact losses over the members, with and without the last term."""
    r = Relations(*(x[s.corpus.members] for x in s.relations[query]))
    before = arrays["before"].astype(np.float64)
    for g, group in enumerate(s.plan.studied_groups):
        a, b, curved = (arrays[name][:, g].astype(np.float64) for name in ("a", "b", "curved"))
        for k, rho in enumerate(s.plan.rises):
            rate = float(arrays["rate"][g, k])
            exact = scores.exact(before, arrays["after"][g, k])
            key = {"group": group, "step": methods.rise_name(rho), "level": f"{updates}"}
            found = {
                "quadratic": scores.linearised(a, b, rate).total,
                "with the second-order term": scores.linearised(a, b + curved, rate).total,
            }
            for method, values in found.items():
                for metric, value in _agreement(values[~r.query], exact[~r.query]).items():
                    yield s.record(query, value, "quadratic", metric, method, **key)
            parts = scores.linearised(a, b, rate)
            for method, values in (("exact", exact), ("odd", parts.odd), ("even", parts.even)):
                found_by = metrics(scores.score(values).value, r, s.plan.caliper)
                for metric in ("self_rank", "relatives", "captions"):
                    yield s.record(query, found_by[metric], "quadratic", metric, method, **key)


def _agreement(values: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Of per-draw rises (m, R, S) with the exact ones."""
    x, y = scores.score(values).value, scores.score(exact).value
    fine = ~np.isnan(x) & ~np.isnan(y)
    out = {"spearman": spearman(x, y), "relative_error": _relative_error(x[fine], y[fine])}
    out["top10"] = top_overlap(x, y, _TOP) if fine.sum() >= _TOP else np.nan
    bins = scores.per_bin(values[fine]), scores.per_bin(exact[fine])
    for b in range(BINS):
        out[f"relative_error_bin{b}"] = _relative_error(bins[0][:, b], bins[1][:, b])
    return out


def _relative_error(x: np.ndarray, y: np.ndarray) -> float:
    """The median over tracks of |x - y| / |y|."""
    known = y != 0
    return float(np.median(np.abs(x - y)[known] / np.abs(y)[known])) if known.any() else np.nan
