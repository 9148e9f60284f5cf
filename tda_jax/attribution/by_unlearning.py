"""Attribution by unlearning, from a model and arrays to per-draw results on disk.

The order of work: the Fisher information of the corpus; for each query its gradients and its
learning rate; then passes over the corpus, each serving several queries. What is finished is kept,
and a run that goes on computes only what is missing:

    WORKDIR/fisher.safetensors                        F over the group
    WORKDIR/before/                                   store: losses at θ0 ("exact" only)
    WORKDIR/queries/QUERY/gradient/BLOCK.safetensors  a block of the query's gradient
    WORKDIR/queries/QUERY/calibration.safetensors     the query's own response
    WORKDIR/queries/QUERY/step.safetensors            Δ ("exact" only)
    WORKDIR/queries/QUERY/sweep/                      store: what the sweep gave for this query

Several processes may share the work (`Compute.hosts`): each takes a range of the blocks of rows, of
the queries' blocks and of the stores' chunks. They meet between these, and in none of them.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tda_jax import devices, examples, fingerprint, hosts, store
from tda_jax import params as tree
from tda_jax.attribution import (
    directions,
    information,
    linearised,
    passes,
    prepare,
    sweep,
    unlearn,
)
from tda_jax.attribution.contract import Model, split_group
from tda_jax.attribution.directions import Direction
from tda_jax.attribution.prepare import Progress, silent
from tda_jax.attribution.settings import Compute, Settings, made_of, refuse, refuse_compute

_FISHER = ("group", "fisher_draws", "fisher_tracks", "mask_unlearn", "seed")
_SWEEP = ("replicates", "strata", "mask_sweep", "seed")
_DIRECTION = (*_FISHER, "query_draws", "blocks", "damping", "corpus_size")
_LINEAR = (*_DIRECTION, *_SWEEP, "method", "dtype", "second_order")
_CALIBRATION = (*_DIRECTION, "replicates", "strata", "dtype")
_STEP = (*_CALIBRATION, "rise", "rate", "steps")
_EXACT = (*_STEP, *_SWEEP, "method", "frames")


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


class _Context(NamedTuple):
    """What the steps of one run share."""

    model: Model
    corpus: examples.Corpus
    settings: Settings
    compute: Compute
    workdir: Path
    corpus_print: str
    tracks_print: Mapping[str, str]
    code: Mapping[str, Any]
    progress: Progress
    moved: tree.Flat
    rest: tree.Flat


def run(
    model: Model,
    corpus: examples.Corpus,
    queries: examples.Corpus,
    settings: Settings,
    compute: Compute,
    workdir: Path,
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
    computes = fingerprint.of_code(__name__, "tda_jax.attribution.unet")
    code = {"code": computes, "versions": fingerprint.versions()}
    prints = examples.corpus_fingerprint(corpus)
    # Placed once: all passes then share these copies.
    parts = devices.replicate(split_group(model, settings.group), compute.devices)
    weighed = information.fisher_tracks_print(corpus)
    context = _Context(
        model, corpus, settings, compute, workdir, prints, weighed, code, progress, *parts
    )
    fisher, notes = information.fisher_information(
        model,
        corpus,
        settings,
        compute,
        workdir / "fisher.safetensors",
        _source(context, _FISHER),
        progress,
    )
    engine = _engine(context)
    before = _before(context, engine) if settings.method == "exact" else None
    out = Run({}, before, {}, [], notes, own_rows(corpus, queries))
    for start in range(0, len(queries.ids), compute.queries_per_pass):
        some = range(start, min(start + compute.queries_per_pass, len(queries.ids)))
        asked = [examples.take(queries, [i]) for i in some]
        progress("queries unlearned", start, len(queries.ids))
        _prepare_together(context, engine, asked, fisher)
        chosen = {}
        for query in asked:
            try:
                chosen[query.ids[0]] = query, _unlearned(context, engine, query, fisher)
            except unlearn.UnusableQuery as error:
                out.skipped.append((query.ids[0], str(error)))
        progress("queries unlearned", some.stop, len(queries.ids))
        one_pass = _linear_pass if settings.method == "linearised" else _exact_pass
        out.sweeps.update(one_pass(context, engine, chosen, fisher) if chosen else {})
        found = {name: (d.calibration, d.rate) for name, (_, d) in chosen.items()}
        out.directions.update(found)
    hosts.meet(compute.hosts, "all queries swept")
    return out


def own_rows(corpus: examples.Corpus, queries: examples.Corpus) -> dict[str, int]:
    """Where queries that are tracks of the corpus stand in it: of the same id and latent."""
    place = {name: i for i, name in enumerate(corpus.ids)}
    latents, tracks = (np.asarray(c.examples.latent) for c in (queries, corpus))
    return {
        name: place[name]
        for name, latent in zip(queries.ids, latents, strict=True)
        if name in place and np.array_equal(latent, tracks[place[name]])
    }


def query_folder(workdir: Path, query: str) -> Path:
    """Where the results of a query lie."""
    return workdir / "queries" / prepare.slug(query)


class _Engine(NamedTuple):
    """The compiled passes, each with the parameters placed for it."""

    gradient: tuple[unlearn.GradientPass, Any]
    calibration: tuple[linearised.LinearPass, Any]
    sweep: tuple[sweep.Sweep, Any]
    linear: tuple[linearised.LinearPass, Any]


def _engine(context: _Context) -> _Engine:
    s, batch, used = context.settings, context.compute.batch, context.compute.devices
    parts = context.moved, context.rest
    gradient = unlearn.make_gradient(context.model, s.query_draws, s.blocks, s.seed, batch, used)
    calibration = directions.calibration_pass(context.model, s, batch, used)
    swept = sweep.make_sweep(context.model, s.draws, s.seed, batch, used, frames=s.frames)
    pairs = linearised.pairs(batch, context.compute.queries_per_pass * s.blocks)
    linear = linearised.make_linearised(
        context.model, s.draws, s.seed, pairs, used, dtype=s.dtype, curved=s.second_order
    )
    return _Engine(
        (gradient, unlearn.place(gradient, *parts)),
        (calibration, linearised.place(calibration, *parts)),
        (swept, sweep.place(swept, *parts)),
        (linear, linearised.place(linear, *parts)),
    )


def _prepare_together(
    context: _Context, engine: _Engine, asked: Sequence[examples.Corpus], fisher: tree.Flat
) -> None:
    """Shares what takes long of several queries among the processes; alone, nothing is done yet."""
    among, blocks = context.compute.hosts, context.settings.blocks
    if among.count == 1:
        return
    for item in hosts.share(among, len(asked) * blocks):
        with suppress(unlearn.UnusableQuery):  # it is kept, and told to all
            _block(context, engine, asked[item // blocks], item % blocks)
    hosts.meet(among, "gradients of queries")
    for i in hosts.share(among, len(asked)):
        with suppress(unlearn.UnusableQuery):
            _unlearned(context, engine, asked[i], fisher)
    hosts.meet(among, "steps of queries")


def _unlearned(
    context: _Context, engine: _Engine, query: examples.Corpus, fisher: tree.Flat
) -> Direction:
    """The direction of a query; for exact losses its step is kept, too."""
    direction = _direction(context, engine, query, fisher)
    if context.settings.method == "exact":
        _step(context, engine, query, direction, fisher)
    return direction


def _block(
    context: _Context, engine: _Engine, query: examples.Corpus, block: int
) -> tuple[tree.Flat, float]:
    """A block of a query's gradient, from its artifact or computed now."""
    return prepare.query_block(
        query,
        context.settings,
        block,
        context.moved,
        *engine.gradient,
        query_folder(context.workdir, query.ids[0]) / "gradient",
        prepare.query_source(context.model, query, context.settings, context.code),
    )


def _direction(
    context: _Context, engine: _Engine, query: examples.Corpus, fisher: tree.Flat
) -> Direction:
    s, folder = context.settings, query_folder(context.workdir, query.ids[0])
    each = [_block(context, engine, query, block) for block in range(s.blocks)]
    gradient = unlearn.together(each, query.ids[0])
    blocks = unlearn.preconditioned(gradient.blocks, fisher, s.damping, s.corpus_size)
    calibration = directions.calibrate(
        *engine.calibration,
        blocks,
        query,
        s,
        folder / "calibration.safetensors",
        _query_source(context, query, _CALIBRATION),
    )
    return Direction(blocks, calibration, directions.rate_of(calibration, s))


def _linear_pass(
    context: _Context,
    engine: _Engine,
    chosen: Mapping[str, tuple[examples.Corpus, Direction]],
    fisher: tree.Flat,
) -> dict[str, store.Store]:
    s, compute = context.settings, context.compute
    stores = {
        name: _store(context, name, passes.linear_fields(s), _query_source(context, query, _LINEAR))
        for name, (query, _) in chosen.items()
    }
    blocks = [direction.blocks for _, direction in chosen.values()]
    blocks += blocks[-1:] * (compute.queries_per_pass - len(blocks))
    passes.linear_pass(
        *engine.linear,
        blocks,
        list(stores.values()),
        context.corpus,
        s,
        compute.hosts,
        context.progress,
    )
    return stores


def _exact_pass(
    context: _Context,
    engine: _Engine,
    chosen: Mapping[str, tuple[examples.Corpus, Direction]],
    fisher: tree.Flat,
) -> dict[str, store.Store]:
    s = context.settings
    fields = passes.loss_fields(s, context.corpus.examples.latent.shape[1])
    stores, steps = {}, []
    for name, (query, direction) in chosen.items():
        stores[name] = _store(context, name, fields, _query_source(context, query, _EXACT))
        steps.append(_step(context, engine, query, direction, fisher))
    passes.loss_pass(
        *engine.sweep,
        steps,
        list(stores.values()),
        context.corpus,
        s,
        context.compute.hosts,
        context.progress,
        "losses after unlearning",
    )
    return stores


def _step(
    context: _Context,
    engine: _Engine,
    query: examples.Corpus,
    direction: Direction,
    fisher: tree.Flat,
) -> tree.Flat:
    """Δ of a query, from its artifact or computed now."""

    def make() -> tuple[tree.Flat, Mapping[str, Any]]:
        step = prepare.final_step(
            query, direction.blocks, fisher, context.settings, *engine.gradient, direction.rate
        )
        return step, {"rate": direction.rate}

    path = query_folder(context.workdir, query.ids[0]) / "step.safetensors"
    return prepare.kept(path, _query_source(context, query, _STEP), make)[0]


def _before(context: _Context, engine: _Engine) -> store.Store:
    """The losses at θ0, shared by all queries and groups."""
    s = context.settings
    fields = passes.loss_fields(s, context.corpus.examples.latent.shape[1])
    source = _source(context, (*_SWEEP, "frames"))
    kept = _opened(context, context.workdir / "before", fields, source)
    passes.loss_pass(
        *engine.sweep,
        [prepare.no_step(context.moved)],
        [kept],
        context.corpus,
        s,
        context.compute.hosts,
        context.progress,
        "losses before",
    )
    return kept


def _store(
    context: _Context, query: str, fields: Sequence[store.Field], source: Mapping[str, Any]
) -> store.Store:
    return _opened(context, query_folder(context.workdir, query) / "sweep", fields, source)


def _opened(
    context: _Context, folder: Path, fields: Sequence[store.Field], source: Mapping[str, Any]
) -> store.Store:
    """A store that process 0 makes and the others open."""

    def opened() -> store.Store:
        ids, chunk = context.corpus.ids, context.compute.chunk
        return store.open_store(folder, ids, fields, source, chunk)

    return hosts.first_then_all(context.compute.hosts, f"store {folder.name}", opened)


def _source(context: _Context, names: Sequence[str]) -> dict[str, Any]:
    weighed = context.tracks_print if set(_FISHER) <= set(names) else {}
    made = made_of(context.model, context.corpus_print, context.settings, *names)
    return {**made, **weighed, **context.code}


def _query_source(
    context: _Context, query: examples.Corpus, names: Sequence[str]
) -> dict[str, Any]:
    """What a result of one query over the corpus was made from."""
    own = prepare.query_source(context.model, query, context.settings, context.code)
    parts = {f"query_{name}": own[name] for name in ("corpus", "query", "query_frames")}
    return {**_source(context, names), **parts}
