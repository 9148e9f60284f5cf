"""Passes over a corpus: chunk by chunk into stores, for several queries at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from tda_jax import examples, store
from tda_jax import params as tree
from tda_jax.attribution import linearised, sweep
from tda_jax.attribution.prepare import Progress
from tda_jax.attribution.settings import Settings
from tda_jax.store import Field


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
        progress: told of tracks done.
    """
    data = sweep_examples(corpus, settings)

    def compute(rows: slice, ids: Sequence[str]) -> list[dict[str, np.ndarray]]:
        some = jax.tree.map(lambda x: x[rows], data)
        got = linearised.expand(linear, placed, along, some, ids)
        each = [
            {name: x[:, q] for name, x in got._asdict().items() if x is not None and name != "loss"}
            for q in range(len(stores))
        ]
        return [{"loss": got.loss, **values} for values in each]

    if any(store.missing(s) for s in stores):
        along = linearised.place_directions(linear, directions)
        _fill(stores, corpus, compute, "linearised sweep", progress)


def loss_pass(
    swept: sweep.Sweep,
    placed: Any,
    steps: Sequence[tree.Flat],
    stores: Sequence[store.Store],
    corpus: examples.Corpus,
    settings: Settings,
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
        progress: told of tracks done.
        stage: the name of the work, for `progress`.
    """
    data = sweep_examples(corpus, settings)

    def compute(rows: slice, ids: Sequence[str]) -> list[dict[str, np.ndarray]]:
        some = jax.tree.map(lambda x: x[rows], data)
        out = [sweep.losses(swept, placed, step, some, ids) for step in moved]
        return [{"loss": x.draws} | ({} if x.frames is None else {"frames": x.frames}) for x in out]

    if any(store.missing(s) for s in stores):
        moved = [sweep.displaced(swept, placed, step) for step in steps]
        _fill(stores, corpus, compute, stage, progress)


def _fill(
    stores: Sequence[store.Store],
    corpus: examples.Corpus,
    compute: Callable[[slice, Sequence[str]], list[Mapping[str, np.ndarray]]],
    stage: str,
    progress: Progress,
) -> None:
    """Computes each chunk that a store misses, once for all of them, and writes it to those."""
    lacking = [set(store.missing(s)) for s in stores]
    todo = sorted(set().union(*lacking))
    total = len(corpus.ids)
    done = total - sum(len(store.rows(stores[0], chunk)) for chunk in todo)
    progress(stage, done, total)
    for chunk in todo:
        rows = store.rows(stores[0], chunk)
        here = slice(rows.start, rows.stop)
        for s, lacks, values in zip(stores, lacking, compute(here, corpus.ids[here]), strict=True):
            if chunk in lacks:
                store.write_chunk(s, chunk, values)
        done += len(rows)
        progress(stage, done, total)


def _kept(settings: Settings) -> str:
    """Results are kept in float32, or in float64 where that was asked for."""
    return "float64" if settings.dtype == "float64" else "float32"
