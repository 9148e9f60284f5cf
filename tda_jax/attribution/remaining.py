"""What a run in a workdir would still have to compute, and how much it will keep on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tda_jax import examples, store
from tda_jax.attribution import information, passes
from tda_jax.attribution.contract import split_group
from tda_jax.attribution.workdir import (
    BEFORE,
    CALIBRATION,
    FISHER,
    GRADIENT,
    STEP,
    SWEEP,
    Job,
    fisher_source,
    open_before,
    open_sweep,
    query_folder,
)
from tda_jax.manifest import MANIFEST


def left(job: Job, queries: examples.Corpus) -> dict[str, int]:
    """The (row, draw) pairs that are not there yet, by stage of `plan.plan`.

    Args:
        job: of the run.
        queries: to be attributed.

    Raises:
        InputError: the workdir holds results of something else, or damaged ones.
    """
    s, n = job.settings, len(job.corpus.ids)
    one_by_one = [examples.take(queries, [i]) for i in range(len(queries.ids))]
    rows = information.rows_left(job.corpus, s, job.workdir / FISHER, fisher_source(job))
    found = {"Fisher information": rows * s.fisher_draws}
    found["query gradients"] = sum(_of_gradient(job, query) for query in queries.ids)
    folders = [query_folder(job.workdir, query) for query in queries.ids]
    lacking = sum(not (folder / CALIBRATION).exists() for folder in folders)
    found["query calibration"] = lacking * s.draws.count
    swept = [
        _lacking(folder / SWEEP, lambda q=query: open_sweep(job, q), n, job.compute.chunk)
        for folder, query in zip(folders, one_by_one, strict=True)
    ]
    if s.method == "exact":
        before = _lacking(job.workdir / BEFORE, lambda: open_before(job), n, job.compute.chunk)
        found["losses before"] = int(before.sum()) * s.draws.count
        total = sum(int(rows.sum()) for rows in swept)
        return found | {"losses after unlearning": total * s.draws.count}
    together = job.compute.queries_per_pass
    groups = [swept[i : i + together] for i in range(0, len(swept), together)]
    total = sum(int(np.any(group, axis=0).sum()) for group in groups)
    return found | {"linearised sweep": total * s.draws.count}


def kept_bytes(job: Job, queries: int) -> int:
    """Bytes of all that a run keeps for so many queries, but for tables and what files add."""
    s, n = job.settings, len(job.corpus.ids)
    moved, _ = split_group(job.model, s.group)
    group = sum(leaf.size * leaf.dtype.itemsize for leaf in moved.values())
    if s.method == "exact":
        frames = job.corpus.examples.latent.shape[1]
        losses = n * _bytes(passes.loss_fields(s, frames))
        return group * (1 + queries * (s.blocks + 1)) + (1 + queries) * losses
    return group * (1 + queries * s.blocks) + queries * n * _bytes(passes.linear_fields(s))


def _bytes(fields: list[store.Field]) -> int:
    return sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in fields)


def _of_gradient(job: Job, query: str) -> int:
    """Draws that the gradient of a query, and its further steps, still lack."""
    s, folder = job.settings, query_folder(job.workdir, query)
    if s.method == "exact" and (folder / STEP).exists():
        return 0
    there = sum((folder / GRADIENT / f"{b}.safetensors").exists() for b in range(s.blocks))
    return (s.blocks - there) * (s.query_draws // s.blocks) + (s.steps - 1) * s.query_draws


def _lacking(folder: Path, opened: Callable[[], store.Store], n: int, chunk: int) -> np.ndarray:
    """Which rows of a store are not there, (n,); a store that is not there is not made."""
    if not (folder / MANIFEST).exists():
        return np.ones(n, bool)
    found, missing = np.zeros(n, bool), store.missing(opened())
    for i in missing:
        found[i * chunk : (i + 1) * chunk] = True
    return found
