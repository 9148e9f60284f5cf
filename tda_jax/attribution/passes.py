"""Passes over a corpus: chunk by chunk into stores, for several queries at a time."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from tda_jax import columns, examples, hosts, store
from tda_jax import params as tree
from tda_jax.attribution import linearised, sweep
from tda_jax.attribution.prepare import Progress
from tda_jax.attribution.settings import Settings
from tda_jax.store import Field

_Compute = Callable[
    [examples.Example, Sequence[str], Sequence[int]], list[Mapping[str, np.ndarray]]
]


def linear_fields(settings: Settings) -> list[Field]:
    """What a linearised sweep keeps of each track for one query; see `linearised.Expansion`."""
    draws, blocks = (settings.replicates, settings.strata), (settings.blocks, settings.strata)
    names = ["loss", "a", "b", "b_step"] + ["curved"] * settings.second_order
    fields = [Field(name, draws, _kept(settings)) for name in names]
    without = [Field(name, blocks, _kept(settings)) for name in ("a_without", "b_without")]
    return fields + without


def loss_fields(settings: Settings, frames: int) -> list[Field]:
    """What a sweep of losses keeps of each track; see `sweep.Losses`."""
    draws = Field("loss", (settings.replicates, settings.strata), _kept(settings))
    return [draws] + [Field("frames", (frames,), _kept(settings))] * settings.frames


def sweep_examples(corpus: examples.Corpus, settings: Settings) -> examples.Example:
    """The examples as the sweep sees them: M_L decides whether padding counts."""
    return corpus.examples if settings.mask_sweep else examples.unmasked(corpus.examples)


def linear_pass(
    linear: linearised.LinearPass,
    placed: Any,
    directions: Sequence[tree.Flat],
    stores: Sequence[store.Store],
    corpus: examples.Corpus,
    settings: Settings,
    among: hosts.Hosts,
    progress: Progress,
) -> None:
    """Expands every track along the directions of several queries; fills one store for each.

    Args:
        linear: from `linearised.make_linearised`.
        placed: the parameters, from `linearised.place`.
        directions: the blocks of each query, as many as there are stores or more (the rest are
            computed for nothing, so that passes with fewer queries need no other program).
        stores: with `linear_fields`.
        corpus: in the order of the stores' rows.
        settings: what the stores were made from.
        among: this process, which does its share of the chunks.
        progress: told of the tracks that this process has done.
    """
    along = lru_cache(lambda: linearised.place_directions(linear, directions))

    def compute(
        some: examples.Example, ids: Sequence[str], which: Sequence[int]
    ) -> list[dict[str, np.ndarray]]:
        got = linearised.expand(linear, placed, along(), some, ids)
        each = [
            {name: x[:, q] for name, x in got._asdict().items() if x is not None and name != "loss"}
            for q in which
        ]
        return [{"loss": got.loss, **values} for values in each]

    seen = corpus._replace(examples=sweep_examples(corpus, settings))
    _fill_all(stores, seen, compute, among, "linearised sweep", progress)


def loss_pass(
    swept: sweep.Sweep,
    placed: Any,
    steps: Sequence[tree.Flat],
    stores: Sequence[store.Store],
    corpus: examples.Corpus,
    settings: Settings,
    among: hosts.Hosts,
    progress: Progress,
    stage: str,
) -> None:
    """The losses of every track under each of several displacements; fills one store for each.

    Args:
        swept: from `sweep.make_sweep`.
        placed: the parameters, from `sweep.place`.
        steps: displacements of the group.
        stores: with `loss_fields`, one for each step.
        corpus: in the order of the stores' rows.
        settings: what the stores were made from.
        among: this process, which does its share of the chunks.
        progress: told of the tracks that this process has done.
        stage: the name of the work, for `progress`.
    """
    moved = lru_cache(lambda: [sweep.displaced(swept, placed, step) for step in steps])

    def compute(
        some: examples.Example, ids: Sequence[str], which: Sequence[int]
    ) -> list[dict[str, np.ndarray]]:
        out = [sweep.losses(swept, placed, moved()[i], some, ids) for i in which]
        return [{"loss": x.draws} | ({} if x.frames is None else {"frames": x.frames}) for x in out]

    seen = corpus._replace(examples=sweep_examples(corpus, settings))
    _fill_all(stores, seen, compute, among, stage, progress)


def _fill_all(
    stores: Sequence[store.Store],
    corpus: examples.Corpus,
    compute: _Compute,
    among: hosts.Hosts,
    stage: str,
    progress: Progress,
) -> None:
    """Fills the stores: what is missing is shared evenly, wherever an earlier run had stopped."""
    missing = hosts.agreed(
        among, f"{stage}: what is missing", lambda: [_ranges(store.missing(one)) for one in stores]
    )
    lacking = _by_chunk(missing)
    if not lacking:
        return
    there = [chunk for chunk in range(store.chunks(stores[0])) if chunk not in lacking]
    done = sum(_tracks(stores, there[i]) for i in hosts.share(among, len(there)))
    chunks = list(lacking)
    own = {chunks[i]: lacking[chunks[i]] for i in hosts.share(among, len(chunks))}
    _fill(stores, own, corpus, compute, done, stage, progress)


def _ranges(chunks: Sequence[int]) -> list[tuple[int, int]]:
    """Rising numbers as ranges, each by its first and the one after its last."""
    ends = [i for i, chunk in enumerate(chunks) if i == 0 or chunks[i - 1] + 1 < chunk]
    return [(chunks[i], chunks[j - 1] + 1) for i, j in itertools.pairwise([*ends, len(chunks)])]


def _by_chunk(missing: Sequence[Sequence[Sequence[int]]]) -> dict[int, list[int]]:
    """The chunks that a store misses, in order, each with the positions of those stores."""
    found: dict[int, list[int]] = {}
    for i, ranges in enumerate(missing):
        for chunk in itertools.chain.from_iterable(range(*ends) for ends in ranges):
            found.setdefault(chunk, []).append(i)
    return dict(sorted(found.items()))


def _tracks(stores: Sequence[store.Store], chunk: int) -> int:
    return len(store.rows(stores[0], chunk))


def _fill(
    stores: Sequence[store.Store],
    lacking: Mapping[int, Sequence[int]],
    corpus: examples.Corpus,
    compute: _Compute,
    done: int,
    stage: str,
    progress: Progress,
) -> None:
    """Computes each chunk for the stores that miss it, together, and writes it to those.

    While one chunk is computed the next is read and the last is written, each by a thread. Tracks
    that are `done` already count as this process's.
    """
    total = done + sum(_tracks(stores, chunk) for chunk in lacking)
    progress(stage, done, total)

    def read(chunk: int) -> tuple[Sequence[str], examples.Example]:
        rows = store.rows(stores[0], chunk)
        here = slice(rows.start, rows.stop)
        return corpus.ids[here], columns.rows_of(corpus.examples, here)

    def write(chunk: int, values: Sequence[Mapping[str, np.ndarray]]) -> int:
        for i, own in zip(lacking[chunk], values, strict=True):
            store.write_chunk(stores[i], chunk, own)
        return _tracks(stores, chunk)

    written: list[Future[int]] = []
    with ThreadPoolExecutor(1) as writer:
        for chunk, (ids, some) in columns.ahead(read, lacking):
            values = compute(some, ids, lacking[chunk])
            written.append(writer.submit(write, chunk, values))
            if len(written) > 1:  # no more than one chunk waits to be written
                done += written.pop(0).result()
                progress(stage, done, total)
        for last in written:
            done += last.result()
            progress(stage, done, total)


def _kept(settings: Settings) -> str:
    """Results are kept in float32, or in float64 where that was asked for."""
    return "float64" if settings.dtype == "float64" else "float32"
