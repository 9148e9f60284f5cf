"""The scores of every method at one level, kept query by query.

    FOLDER/METHOD/QUERY.safetensors   variant -> scores of all tracks

A query that is there is not scored again.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from tda_jax import artifact, examples, fingerprint
from tda_jax.attribution.prepare import slug
from tda_jax.baselines.contract import Method, Passes, Scores, Task
from tda_jax.baselines.pairs import sum_of_both

Progress = Callable[[str, int, int], None]


_MODEL = ("evaluation.network", "models.unet")


class Entry(NamedTuple):
    """A method in the comparison.

    Attributes:
        method: what scores.
        module: of tda_jax, whose code its scores depend on.
        settings: what else they depend on.
        cost: (task, variant) -> what that variant takes alone.
        notes: what the method tells of a query while it scores it, by its id; it is kept.
    """

    method: Method
    module: str
    settings: str
    cost: Callable[[Task, str], Passes]
    notes: dict[str, Any]


class Scored(NamedTuple):
    """All variants of all methods.

    Attributes:
        scores: variant -> (queries, n).
        method: variant -> the name of its method.
        cost: variant -> its passes through the network.
    """

    scores: Mapping[str, Float64[np.ndarray, "queries n"]]
    method: Mapping[str, str]
    cost: Mapping[str, Passes]


def scored(
    entries: Sequence[Entry],
    task: Task,
    queries: examples.Corpus,
    folder: Path,
    progress: Progress,
) -> Scored:
    """The scores of every entry, from their artifacts or computed now.

    Args:
        entries: no two have a variant of the same name.
        task: what is attributed.
        queries: to be attributed, one at a time, as no score depends on others.
        folder: of the artifacts.
        progress: told of queries done.

    Raises:
        InputError: an artifact is of something else; a method refuses.
    """
    found, method, cost = {}, {}, {}
    for entry in entries:
        for variant, values in _of_entry(entry, task, queries, folder, progress).items():
            found[variant], method[variant] = values, entry.method.name
            cost[variant] = entry.cost(task, variant)
    return Scored(found, method, cost)


def with_pairs(
    found: Scored,
    pairs: Mapping[str, Mapping[str, tuple[str, str]]],
    over: Bool[np.ndarray, "queries n"],
) -> Scored:
    """With the sums of two variants' scores each; they cost what both cost.

    Args:
        found: by the methods.
        pairs: what a kind of pair is called -> the name of each -> its two variants.
        over: the tracks that scores are standardised over, for each query.
    """
    scores, method, cost = dict(found.scores), dict(found.method), dict(found.cost)
    for kind, each in pairs.items():
        for name, (one, other) in each.items():
            scores[name] = sum_of_both(found.scores[one], found.scores[other], over)
            method[name] = kind
            both = zip(found.cost[one], found.cost[other], strict=True)
            cost[name] = Passes(*(a + b for a, b in both))
    return Scored(scores, method, cost)


def with_said(
    found: Scored,
    said: Mapping[str, Mapping[str, Float64[np.ndarray, " n"]]] | None,
    queries: Sequence[str],
) -> Scored:
    """With scores that were there already; nan for queries that they say nothing of.

    Args:
        found: by the methods.
        said: by name and query, of the corpus's tracks.
        queries: ids, in the order of the scores.
    """
    nothing = np.full(next(iter(found.scores.values())).shape[1], np.nan)
    more = {
        name: np.stack([by_query.get(query, nothing) for query in queries])
        for name, by_query in (said or {}).items()
    }
    unknown = Passes(float("nan"), float("nan"))
    return Scored(
        {**found.scores, **more},
        {**found.method, **{name: name for name in more}},
        {**found.cost, **dict.fromkeys(more, unknown)},
    )


def _of_entry(
    entry: Entry, task: Task, queries: examples.Corpus, folder: Path, progress: Progress
) -> Scores:
    prepared, each, name = None, [], entry.method.name
    shared = _source(entry, task)
    for i, query in enumerate(queries.ids):
        progress(f"scores by {name}", i, len(queries.ids))
        one = examples.take(queries, [i])
        path = folder / slug(name) / f"{slug(query)}.safetensors"
        source = {**shared, "query": query, "latent": examples.corpus_fingerprint(one)}
        if not path.exists():
            if prepared is None:
                prepared = entry.method.prepare(task)
            values = entry.method.score(task, prepared, one)
            kept = {variant: x[0] for variant, x in values.items()}
            artifact.save(path, kept, source, entry.notes.get(query, {}))
        each.append(artifact.load(path, source)[0])
    progress(f"scores by {name}", len(queries.ids), len(queries.ids))
    return {variant: np.stack([one[variant] for one in each]) for variant in sorted(each[0])}


def _source(entry: Entry, task: Task) -> dict[str, Any]:
    return {
        "checkpoint": task.model.fingerprint,
        "corpus": examples.corpus_fingerprint(task.corpus),
        "corpus_size": task.corpus_size,
        "seed": task.seed,
        "method": entry.method.name,
        "settings": entry.settings,
        "groups": dict(task.model.groups),
        "code": fingerprint.of_code(*(f"tda_jax.{name}" for name in (*_MODEL, entry.module))),
        "versions": fingerprint.versions(),
    }
