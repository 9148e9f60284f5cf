"""How scores repeat, as records: over draws of a track or query, probes, and half precision."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tda_jax.attribution import scores, unlearn
from tda_jax.evaluation import controls_scores as methods
from tda_jax.evaluation.controls_studies import Seed
from tda_jax.evaluation.ranking import spearman, top_overlap
from tda_jax.evaluation.records import Record
from tda_jax.named_draws import generator

Arrays = Mapping[str, np.ndarray]

PROBES = (1, 4)  # random output probes for each draw of the sweep
_TOP = 10


def draws(
    s: Seed, arrays: Arrays, queries: Sequence[str], rates: Mapping[str, np.ndarray]
) -> Iterator[Record]:
    """Scores from two independent sets of a track's draws, and two standard errors.

    Args:
        s: the seed.
        arrays: from `controls_stages.draws`.
        queries: those that it holds, in order.
        rates: by query, of each direction of `controls_stages.steps`.
    """
    groups = s.plan.studied_groups
    for i, query in enumerate(queries):
        others = ~s.relations[query].query[s.corpus.members]
        for g, group in enumerate(groups):
            a, b = (arrays[name][others, i * len(groups) + g] for name in ("a", "b"))
            rate = float(rates[query][2 * s.plan.groups.index(group)])
            parts = scores.linearised(a, b, rate)
            by_method = {"linearised": parts.total, "odd": parts.odd, "even": parts.even}
            for method, values in by_method.items():
                for count in s.plan.draw_counts:
                    repeated = _repeated(values, count // s.plan.strata)
                    key = {"group": group, "step": str(count)}
                    yield s.record(query, repeated, "draws", "repeated", method, **key)
            ratio = _naive_error(parts.total)
            yield s.record(query, ratio, "draws", "naive_error", "linearised", group=group)


def _repeated(values: np.ndarray, replicates: int) -> float:
    """Spearman between scores of the first replicates and of as many from the second half."""
    half = values.shape[1] // 2
    first, second = values[:, :replicates], values[:, half : half + replicates]
    return spearman(first.mean((1, 2)), second.mean((1, 2)))


def _naive_error(values: np.ndarray) -> float:
    """The median over tracks of the spread of all draws over that within strata."""
    naive = values.reshape(len(values), -1).std(axis=1, ddof=1) / np.sqrt(values[0].size)
    return float(np.median(naive / scores.score(values).standard_error))


def query_draws(s: Seed, query: str, arrays: Arrays) -> Iterator[Record]:
    """Scores from two independent sets of the query's draws, with b biased and not."""
    others = ~s.relations[query].query[s.corpus.members]
    for g, group in enumerate(s.plan.studied_groups):
        a, biased, unbiased = (
            arrays[name][g][others].mean((-2, -1), dtype=np.float64)
            for name in ("a", "b_step", "b")
        )  # (m, counts, 2)
        rate = _own_rates(s, arrays, g)
        by_method = {
            "odd": a,
            "even, b as taken": biased,
            "even, b from halves": unbiased,
            "linearised, b as taken": rate * a + rate**2 * biased,
            "linearised, b from halves": rate * a + rate**2 * unbiased,
        }
        for k, count in enumerate(s.plan.query_draw_counts):
            key = {"group": group, "step": str(count)}
            for method, values in by_method.items():
                value = spearman(values[:, k, 0], values[:, k, 1])
                yield s.record(query, value, "query_draws", "repeated", method, **key)
            bias = (biased - unbiased)[:, k].mean() / unbiased[:, k].mean()
            yield s.record(query, bias, "query_draws", "bias", "even, b as taken", **key)


def _own_rates(s: Seed, arrays: Arrays, group: int) -> np.ndarray:
    """The learning rate of each set for ρ, (counts, 2)."""
    own = arrays["own_a"][group], arrays["own_b"][group]
    loss = float(arrays["own_loss"][group])
    rates = [
        unlearn.rate_for_rise(float(a), float(b), loss, s.plan.rise)
        for a, b in zip(own[0].ravel(), own[1].ravel(), strict=True)
    ]
    return np.array(rates).reshape(own[0].shape)


def probes(s: Seed, query: str, arrays: Arrays) -> Iterator[Record]:
    """The even part from random output probes, against exact scores, at every step.

    For a normal probe v, (vᵀ J u)² is |J u|² times a chi-squared variable of one degree, so the
    probes are drawn as such, without going through the network.
    """
    others = ~s.relations[query].query
    for g, group in enumerate(s.plan.groups):
        b = arrays["b"][:, 2 * g]
        for k in PROBES:
            drawn = generator(s.seed, f"probes {k} {query}").chisquare(k, b.shape) / k
            for step, name in enumerate(methods.step_names(s.plan)):
                rate = methods.rate_of(arrays, s.plan, 2 * g, step)
                guess = scores.linearised(arrays["a"][:, 2 * g], b * drawn, rate).total
                exact = scores.exact(s.before, arrays["after"][g, step])
                x, y = scores.score(guess).value, scores.score(exact).value
                method = f"{k * s.plan.draws.count} probes"
                value = spearman(x[others], y[others])
                yield s.record(query, value, "probes", "agreement", method, group=group, step=name)


def half(s: Seed, query: str, arrays: Arrays, full: Arrays) -> Iterator[Record]:
    """The expansion in bfloat16 against float32, at ρ, over the members."""
    others = ~s.relations[query].query[s.corpus.members]
    for g, group in enumerate(s.plan.groups):
        rate = float(full["rate"][2 * g])
        whole = {name: full[name][s.corpus.members] for name in ("a", "b")}
        pair = [
            scores.linearised(x["a"][others, 2 * g], x["b"][others, 2 * g], rate)
            for x in (arrays, whole)
        ]
        for method in ("total", "odd", "even"):
            x, y = (scores.score(getattr(parts, method)).value for parts in pair)
            name = "linearised" if method == "total" else method
            yield s.record(query, spearman(x, y), "half", "spearman", name, group=group)
            top = top_overlap(x, y, _TOP) if len(x) >= _TOP else np.nan
            yield s.record(query, top, "half", "top10", name, group=group)
