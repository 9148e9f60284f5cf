"""What a run in a workdir would still have to compute, and how much it will keep on disk."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from tda_jax import artifact, examples, places, store
from tda_jax.attribution import information, passes, prepare
from tda_jax.attribution.contract import split_group
from tda_jax.attribution.workdir import (
    BEFORE,
    CALIBRATION,
    FISHER,
    GRADIENT,
    STEP,
    SWEEP,
    Job,
    calibration_source,
    fisher_source,
    gradient_source,
    open_before,
    open_sweep,
    query_folder,
    step_source,
    whole_sweep,
)
from tda_jax.manifest import MANIFEST
from tda_jax.places import Place


def left(job: Job, queries: examples.Corpus) -> dict[str, int]:
    """The (row, draw) pairs that are not there yet, by stage of `plan.plan`.

    Args:
        job: of the run.
        queries: to be attributed.

    Raises:
        InputError: the workdir holds results of something else, or damaged ones.
    """
    s, n = job.settings, len(job.corpus.ids)
    rows = information.rows_left(job.corpus, s, job.workdir / FISHER, fisher_source(job))
    found = {"Fisher information": rows * s.fisher_draws}
    found |= {"query gradients": 0, "query calibration": 0}
    swept = []
    for i in range(len(queries.ids)):
        query = examples.take(queries, [i])
        if whole_sweep(job, query) is not None:
            swept.append(np.zeros(n, bool))
            continue
        folder = query_folder(job.workdir, query.ids[0])
        gradient, calibration, usable = _of_query(job, query, folder)
        found["query gradients"] += gradient
        found["query calibration"] += calibration
        if usable:
            opened = partial(open_sweep, job, query)
            swept.append(_lacking(folder / SWEEP, opened, n, job.compute.chunk))
    if s.method == "exact":
        before = _lacking(job.workdir / BEFORE, lambda: open_before(job), n, job.compute.chunk)
        found["losses before"] = int(before.sum()) * s.draws.count
        total = sum(int(rows.sum()) for rows in swept)
        return found | {"losses after unlearning": total * s.draws.count}
    together = job.compute.queries_per_pass
    groups = [swept[i : i + together] for i in range(0, len(swept), together)]
    total = sum(int(np.any(group, axis=0).sum()) for group in groups)
    return found | {"linearised sweep": total * s.draws.count}


def disk_bytes(job: Job, queries: int) -> int:
    """Bytes on disk at most while so many queries are attributed, but for tables and files' heads.

    The sweeps of all of them stay; gradients and steps are those of one pass. Beside it lie, where
    there were any, those of queries that cannot be unlearned, and of a pass that was not finished.
    """
    s, n = job.settings, len(job.corpus.ids)
    moved, _ = split_group(job.model, s.group)
    group = sum(leaf.size * leaf.dtype.itemsize for leaf in moved.values())
    together = min(queries, job.compute.queries_per_pass)
    if s.method == "exact":
        frames = job.corpus.examples.latent.shape[1]
        losses = n * _bytes(passes.loss_fields(s, frames))
        return group * (1 + together * (s.blocks + 1)) + (1 + queries) * losses
    return group * (1 + together * s.blocks) + queries * n * _bytes(passes.linear_fields(s))


def _bytes(fields: list[store.Field]) -> int:
    return sum(int(np.prod(f.shape)) * np.dtype(f.dtype).itemsize for f in fields)


def _of_query(job: Job, query: examples.Corpus, folder: Place) -> tuple[int, int, bool]:
    """Draws that a query's gradients and its response lack, and whether it can be unlearned."""
    s, source = job.settings, gradient_source(job, query)
    blocks = [
        _notes(folder / GRADIENT / f"{b}.safetensors", {**source, "block": b})
        for b in range(s.blocks)
    ]
    step = _notes(folder / STEP, step_source(job, query)) if s.method == "exact" else {}
    flat = all(notes and notes.get(prepare.ZERO) for notes in blocks)
    if flat or any(notes and prepare.UNUSABLE in notes for notes in (*blocks, step)):
        return 0, 0, False
    lacking = sum(notes is None for notes in blocks) * (s.query_draws // s.blocks)
    further = (s.steps - 1) * s.query_draws if step is None else 0
    response = _notes(folder / CALIBRATION, calibration_source(job, query))
    return lacking + further, (response is None) * s.draws.count, True


def _notes(path: Place, source: Mapping[str, Any]) -> dict[str, Any] | None:
    """The notes of an artifact, None where it is not there; one of something else is refused."""
    return artifact.notes_of(path, source) if places.exists(path) else None


def _lacking(folder: Place, opened: Callable[[], store.Store], n: int, chunk: int) -> np.ndarray:
    """Which rows of a store are not there, (n,); a store that is not there is not made."""
    if not places.exists(folder / MANIFEST):
        return np.ones(n, bool)
    found, missing = np.zeros(n, bool), store.missing(opened())
    for i in missing:
        found[i * chunk : (i + 1) * chunk] = True
    return found
