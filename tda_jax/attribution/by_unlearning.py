"""Attribution by unlearning, from a model and arrays to per-draw results on disk.

The order of work: the Fisher information of the corpus; for each query its gradients and its
learning rate; then passes over the corpus, each serving several queries. What is finished is kept,
and a run that goes on computes only what is missing; `workdir` says where everything lies.

Several processes may share the work (`Compute.hosts`): each takes a range of the blocks of rows, of
the queries' blocks and of the stores' chunks. They meet between these, and in none of them.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tda_jax import devices, examples, fingerprint, hosts, store
from tda_jax import params as tree
from tda_jax.attribution import (
    directions,
    information,
    passes,
    prepare,
    unlearn,
)
from tda_jax.attribution.contract import Model, split_group
from tda_jax.attribution.directions import Direction
from tda_jax.attribution.engine import Engine, make_engine
from tda_jax.attribution.prepare import Progress, silent
from tda_jax.attribution.settings import Compute, Settings, refuse, refuse_compute
from tda_jax.attribution.workdir import (
    CALIBRATION,
    FISHER,
    GRADIENT,
    STEP,
    Job,
    calibration_source,
    drop_directions,
    fisher_source,
    gradient_source,
    job_of,
    open_before,
    open_sweep,
    query_folder,
    step_source,
    sweep_parts,
    whole_sweep,
)
from tda_jax.places import Place

_AT_ONCE = 8  # stores that are opened together, as a bucket is slow
_PATIENCE = 1800.0  # seconds within which all processes have read what they are given


class Run(NamedTuple):
    """What a run left on disk, and what it left out.

    Attributes:
        sweeps: by query id, its store: `passes.linear_fields` or `passes.loss_fields`.
        before: the store of losses at θ0; None for "linearised", whose stores hold them.
        directions: by query id, its calibration and learning rate.
        skipped: (query id, reason) of queries that could not be unlearned.
        fisher: notes of the Fisher information, see `information.fisher_information`.
        own: by query id, where the query itself stands in the corpus, for queries that are one of
            its tracks: of the same id and the same latent.
    """

    sweeps: dict[str, store.Store]
    before: store.Store | None
    directions: dict[str, tuple[directions.Calibration, float]]
    skipped: list[tuple[str, str]]
    fisher: dict[str, Any]
    own: dict[str, int]


class _Work(NamedTuple):
    """What the steps of one run share."""

    job: Job
    engine: Engine
    moved: tree.Flat
    fisher: tree.Flat
    progress: Progress


def run(
    model: Model,
    corpus: examples.Corpus,
    queries: examples.Corpus,
    settings: Settings,
    compute: Compute,
    workdir: Place,
    progress: Progress = silent,
) -> Run:
    """Attributes queries to the tracks of a corpus.

    Args:
        model: what made the queries.
        corpus: its training tracks, and decoys that it was not trained on.
        queries: generated pieces, or training tracks, with the condition they were made with.
        settings: what decides the scores.
        compute: devices and batches.
        workdir: kept between runs; what is there must have been made from the same.
        progress: told of work done.

    Raises:
        InputError: the input cannot be used, before any work; or `workdir` holds results of
            something else.
    """
    refuse(model, corpus, queries, settings)
    refuse_compute(compute)
    queries = examples.in_memory(queries)
    job = job_of(model, corpus, settings, compute, workdir)
    if compute.hosts.first:
        sweep_parts(workdir)
    hosts.meet_in(compute.hosts, workdir, f"job {_print(job, queries)}", _PATIENCE)
    # Placed once: all passes then share these copies.
    moved, rest = devices.replicate(split_group(model, settings.group), compute.devices)
    fisher, notes = information.fisher_information(
        model,
        corpus,
        settings,
        compute,
        workdir / FISHER,
        fisher_source(job),
        progress,
    )
    work = _Work(job, make_engine(model, settings, compute, moved, rest), moved, fisher, progress)
    before = _before(work) if settings.method == "exact" else None
    out = Run({}, before, {}, [], notes, own_rows(corpus, queries))
    for start in range(0, len(queries.ids), compute.queries_per_pass):
        some = range(start, min(start + compute.queries_per_pass, len(queries.ids)))
        _one_pass(work, queries, some, out)
    return out


def _one_pass(work: _Work, queries: examples.Corpus, some: range, out: Run) -> None:
    """Unlearns some of the queries, and sweeps the corpus for those that lack a whole sweep."""
    among, linear = work.job.compute.hosts, work.job.settings.method == "linearised"
    asked = [examples.take(queries, [i]) for i in some]
    _tell(work, some.start, len(queries.ids))
    done = _swept_before(work, asked)
    left = [query for query in asked if query.ids[0] not in done]
    _prepare_together(work, left)
    chosen, found = {}, {}
    for query in asked:
        name = query.ids[0]
        try:
            if name in done:
                found[name] = _measured(work, query)
                continue
            direction = _unlearned(work, query)
        except unlearn.UnusableQuery as error:
            out.skipped.append((name, str(error)))
            continue
        chosen[name] = query, direction
        found[name] = direction.calibration, direction.rate
    _tell(work, some.stop, len(queries.ids))
    stores = (_linear_pass if linear else _exact_pass)(work, chosen) if chosen else {}
    hosts.meet(among, "queries swept now")
    out.sweeps.update({name: (done | stores)[name] for name in found})
    out.directions.update(found)
    if among.first:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            swept = [query for query in asked if query.ids[0] in done | stores]
            list(pool.map(partial(drop_directions, work.job), swept))


def _swept_before(work: _Work, asked: Sequence[examples.Corpus]) -> dict[str, store.Store]:
    """The sweeps that an earlier run has left whole, by query id."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:

        def find() -> list[bool]:
            return [x is not None for x in pool.map(partial(whole_sweep, work.job), asked)]

        whole = hosts.agreed(work.job.compute.hosts, "queries swept", find)
        done = [query for query, there in zip(asked, whole, strict=True) if there]
        stores = pool.map(partial(open_sweep, work.job), done)
        return {query.ids[0]: kept for query, kept in zip(done, stores, strict=True)}


def _print(job: Job, queries: examples.Corpus) -> str:
    """What must be the same in every process, so that all do the same steps."""
    sizes = {n: getattr(job.compute, n) for n in ("queries_per_pass", "chunk")}
    return fingerprint.of_text(
        repr((job.settings, sizes, job.model.fingerprint, job.corpus_print, str(job.workdir))),
        *queries.ids,
    )


def _tell(work: _Work, done: int, total: int) -> None:
    """Progress of queries, which all processes go through together and process 0 counts."""
    work.progress("queries unlearned", *((done, total) if work.job.compute.hosts.first else (0, 0)))


def own_rows(corpus: examples.Corpus, queries: examples.Corpus) -> dict[str, int]:
    """Where queries that are tracks of the corpus stand in it: of the same id and latent."""
    place = {name: i for i, name in enumerate(corpus.ids)}
    latents, tracks = np.asarray(queries.examples.latent), corpus.examples.latent
    return {
        name: place[name]
        for name, latent in zip(queries.ids, latents, strict=True)
        if name in place and np.array_equal(latent, np.asarray(tracks[place[name]]))
    }


def _prepare_together(work: _Work, asked: Sequence[examples.Corpus]) -> None:
    """Shares what takes long of several queries among the processes; alone, nothing is done yet."""
    among, blocks = work.job.compute.hosts, work.job.settings.blocks
    if among.count == 1:
        return
    for item in hosts.share(among, len(asked) * blocks):
        with suppress(unlearn.UnusableQuery):  # it is kept, and told to all
            _block(work, asked[item // blocks], item % blocks)
    hosts.meet(among, "gradients of queries")
    for i in hosts.share(among, len(asked)):
        with suppress(unlearn.UnusableQuery):
            _unlearned(work, asked[i])
    hosts.meet(among, "steps of queries")


def _unlearned(work: _Work, query: examples.Corpus) -> Direction:
    """The direction of a query; for exact losses its step is kept, too."""
    direction = _direction(work, query)
    if work.job.settings.method == "exact":
        _step(work, query, direction)
    return direction


def _block(work: _Work, query: examples.Corpus, block: int) -> tuple[tree.Flat, float]:
    """A block of a query's gradient, from its artifact or computed now."""
    return prepare.query_block(
        query,
        work.job.settings,
        block,
        work.moved,
        *work.engine.gradient,
        query_folder(work.job.workdir, query.ids[0]) / GRADIENT,
        gradient_source(work.job, query),
    )


def _measured(work: _Work, query: examples.Corpus) -> tuple[directions.Calibration, float]:
    """The response and the learning rate of a query that was swept before."""
    path = query_folder(work.job.workdir, query.ids[0]) / CALIBRATION
    kept = directions.read_calibration(path, calibration_source(work.job, query), query.ids[0])
    return kept, directions.rate_of(kept, work.job.settings)


def _direction(work: _Work, query: examples.Corpus) -> Direction:
    s, folder = work.job.settings, query_folder(work.job.workdir, query.ids[0])
    each = [_block(work, query, block) for block in range(s.blocks)]
    gradient = unlearn.together(each, query.ids[0])
    blocks = unlearn.preconditioned(gradient.blocks, work.fisher, s.damping, s.corpus_size)
    calibration = directions.calibrate(
        *work.engine.calibration,
        blocks,
        query,
        s,
        folder / CALIBRATION,
        calibration_source(work.job, query),
    )
    return Direction(blocks, calibration, directions.rate_of(calibration, s))


def _step(work: _Work, query: examples.Corpus, direction: Direction) -> tree.Flat:
    """Δ of a query, from its artifact or computed now."""
    s, engine = work.job.settings, work.engine

    def make() -> tuple[tree.Flat, Mapping[str, Any]]:
        step = prepare.final_step(
            query, direction.blocks, work.fisher, s, *engine.gradient, direction.rate
        )
        return step, {"rate": direction.rate}

    path = query_folder(work.job.workdir, query.ids[0]) / STEP
    return prepare.kept(path, step_source(work.job, query), make)[0]


def _linear_pass(
    work: _Work, chosen: Mapping[str, tuple[examples.Corpus, Direction]]
) -> dict[str, store.Store]:
    compute = work.job.compute
    stores = _sweep_stores(work, chosen)
    blocks = [direction.blocks for _, direction in chosen.values()]
    blocks += blocks[-1:] * (compute.queries_per_pass - len(blocks))
    passes.linear_pass(
        *work.engine.linear,
        blocks,
        list(stores.values()),
        work.job.corpus,
        work.job.settings,
        compute.hosts,
        work.progress,
    )
    return stores


def _exact_pass(
    work: _Work, chosen: Mapping[str, tuple[examples.Corpus, Direction]]
) -> dict[str, store.Store]:
    stores = _sweep_stores(work, chosen)
    steps = [_step(work, query, direction) for query, direction in chosen.values()]
    _loss_pass(work, steps, list(stores.values()), "losses after unlearning")
    return stores


def _before(work: _Work) -> store.Store:
    """The losses at θ0."""
    job = work.job
    kept = hosts.first_then_all(job.compute.hosts, "store before", lambda: open_before(job))
    _loss_pass(work, [prepare.no_step(work.moved)], [kept], "losses before")
    return kept


def _loss_pass(
    work: _Work, steps: Sequence[tree.Flat], stores: Sequence[store.Store], stage: str
) -> None:
    passes.loss_pass(
        *work.engine.sweep,
        steps,
        stores,
        work.job.corpus,
        work.job.settings,
        work.job.compute.hosts,
        work.progress,
        stage,
    )


def _sweep_stores(
    work: _Work, chosen: Mapping[str, tuple[examples.Corpus, Direction]]
) -> dict[str, store.Store]:
    """The queries' stores, which process 0 makes and the others open; some at once."""

    def opened() -> dict[str, store.Store]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = pool.map(lambda query: open_sweep(work.job, query[0]), chosen.values())
            return dict(zip(chosen, found, strict=True))

    return hosts.first_then_all(work.job.compute.hosts, "stores of queries", opened)
