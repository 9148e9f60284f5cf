"""The Fisher information of a corpus: in blocks of rows, by any number of processes.

The rows of a corpus are cut into blocks that depend on their number alone. Each block is summed on
the devices from zero; sums of blocks are added in float64, where sums of so few float32 numbers of
like size are exact. So neither the number of processes nor a kill changes a bit of the result. (Of
parameters in float64 it may change the last one.)

    NAME.parts/INDEX.safetensors   what process INDEX has summed so far
    NAME.safetensors               the Fisher information
"""

import math
import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from tda_jax import artifact, columns, devices, examples, fingerprint, hosts, keys, places
from tda_jax import params as tree
from tda_jax.attribution import fisher, units
from tda_jax.attribution.contract import Model, split_group
from tda_jax.attribution.prepare import Progress, silent
from tda_jax.attribution.settings import Compute, Settings
from tda_jax.errors import InputError
from tda_jax.places import Place

STAGE = "Fisher information"
_BLOCKS, _LEAST = 256, 16  # blocks at most; rows in one at least
_WAIT = 10.0  # a part is kept again after this many times as long as keeping it took


class FisherRows(NamedTuple):
    """The rows of a corpus that the Fisher information is made of.

    Attributes:
        rows: positions in the corpus, in the order of their ids.
        weights: 1/U for each of the U units of a track; None where every row is a whole track.
        tracks: how many tracks they are of.
    """

    rows: Int[np.ndarray, " n"]
    weights: Float64[np.ndarray, " n"] | None
    tracks: int


class _Part(NamedTuple):
    """What one process has summed.

    Attributes:
        squares: path -> sum, float64.
        blocks: that are in it.
        weights: of each block, the sum of the weights of its (row, draw) pairs.
        count: of these pairs, over all blocks.
        left_out: (id, draw, reason) of pairs that are not.
    """

    squares: tree.Flat
    blocks: tuple[int, ...]
    weights: tuple[float, ...]
    count: int
    left_out: tuple[tuple[str, int, str], ...]


def fisher_rows(corpus: examples.Corpus, settings: Settings) -> FisherRows:
    """All units of the members of a corpus, or of `fisher_tracks` of them at random.

    Args:
        corpus: decoys in it are passed over, since the model was not trained on them.
        settings: `fisher_tracks` and `seed` count.

    Raises:
        InputError: there are fewer tracks; rows of the corpus cannot be units of one track.
    """
    tracks = units.tracks_of(corpus)
    names = [name for name, member in zip(tracks.ids, tracks.members, strict=True) if member]
    if settings.fisher_tracks is not None:
        names = keys.subset(names, settings.fisher_tracks, settings.seed)
    picked = set(names)
    chosen = np.array([name in picked for name in tracks.ids])
    # In the order of ids: a resumed sum goes on in the same one, whatever the corpus's is.
    rows = sorted(np.flatnonzero(chosen[tracks.of_unit]).tolist(), key=corpus.ids.__getitem__)
    of_unit = tracks.of_unit[rows]
    weights = 1 / np.bincount(of_unit)[of_unit]
    whole = len(names) == len(rows)
    return FisherRows(np.array(rows, np.int64), None if whole else weights, len(names))


def fisher_tracks_print(corpus: examples.Corpus) -> dict[str, str]:
    """What decides picks and weights of a corpus's rows and is not in its own fingerprint.

    Returns:
        `tracks`, a sha256 of which member row is of which track; nothing where each is of itself.

    Raises:
        InputError: rows of the corpus cannot be units of one track.
    """
    tracks = units.tracks_of(corpus)
    of_members = np.flatnonzero(corpus.members)
    pairs = sorted((corpus.ids[i], tracks.ids[tracks.of_unit[i]]) for i in of_members)
    if all(row == track for row, track in pairs):
        return {}
    return {"tracks": fingerprint.of_text(*(name for pair in pairs for name in pair))}


def fisher_information(
    model: Model,
    corpus: examples.Corpus,
    settings: Settings,
    compute: Compute,
    path: Place,
    source: Mapping[str, Any],
    progress: Progress = silent,
) -> tuple[tree.Flat, dict[str, Any]]:
    """The Fisher information over the members of a corpus, from its artifact or made now.

    Tracks count alike: each of the U units of one weighs 1/U.

    Args:
        model: what to attribute.
        corpus: decoys in it are passed over, since the model was not trained on them.
        settings: `group`, `fisher_draws`, `fisher_tracks`, `mask_unlearn`, `seed` count.
        compute: devices, batch and processes, each of which calls this.
        path: of the artifact; parts of the sum are kept beside it.
        source: what it is made from, from `settings.made_of`, `fisher_tracks_print` and more.
        progress: told of the rows that this process has done.

    Returns:
        F, path -> array, and notes: tracks, units where these are more, draws, and draws left out
        with their reasons.

    Raises:
        InputError: the artifact there was made from something else; no draw was usable; rows of
            the corpus cannot be units of one track.
    """
    folder = path.with_suffix(".parts")
    there = places.exists(path)
    seen = set() if there else _blocks_in(folder, source)
    hosts.meet(compute.hosts, "parts of the Fisher information seen")  # and none is written before
    if not there:
        chosen = fisher_rows(corpus, settings)
        _sum_blocks(model, corpus, settings, compute, folder, source, chosen, seen, progress)
    hosts.meet(compute.hosts, "Fisher information summed")
    if compute.hosts.first and not there:
        moved, _ = split_group(model, settings.group)
        _save(moved, chosen, folder, path, source)
    hosts.meet(compute.hosts, "Fisher information kept")
    if compute.hosts.first:
        places.delete_folder(folder)  # with what a kill left of a part
    return artifact.load(path, source)


def rows_left(
    corpus: examples.Corpus, settings: Settings, path: Place, source: Mapping[str, Any]
) -> int:
    """How many rows are in no part of the sum yet; arguments as of `fisher_information`.

    Raises:
        InputError: a part, or the artifact, is of something else or damaged.
    """
    if places.exists(path):
        artifact.notes_of(path, source)
        return 0
    blocks = blocks_of(len(fisher_rows(corpus, settings).rows))
    seen = _blocks_in(path.with_suffix(".parts"), source)
    return sum(len(rows) for b, rows in enumerate(blocks) if b not in seen)


def blocks_of(n: int) -> list[range]:
    """The blocks of n rows, which depend on n alone."""
    size = max(_LEAST, -(-n // _BLOCKS))
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def _sum_blocks(
    model: Model,
    corpus: examples.Corpus,
    settings: Settings,
    compute: Compute,
    folder: Place,
    source: Mapping[str, Any],
    chosen: FisherRows,
    seen: Collection[int],
    progress: Progress,
) -> None:
    """Adds this process's share of the blocks that no part has to its own part."""
    used = examples.take(corpus, chosen.rows)
    # `query_frames` in a track's metadata count for queries alone.
    data = used.examples if settings.mask_unlearn else examples.unmasked(used.examples)
    moved, rest = split_group(model, settings.group)
    made = fisher.make_fisher(
        model, settings.fisher_draws, settings.seed, compute.fisher_batch, compute.devices
    )
    placed = fisher.place(made, moved, rest)
    blocks = blocks_of(len(used.ids))
    lacking = [b for b in range(len(blocks)) if b not in seen]
    mine = [lacking[i] for i in hosts.share(compute.hosts, len(lacking))]
    path = folder / f"{compute.hosts.index:05d}.safetensors"
    part = _read(path, source) if places.exists(path) else _nothing(moved)
    total = sum(len(blocks[b]) for b in (*part.blocks, *mine))
    done = total - sum(len(blocks[b]) for b in mine)
    progress(STAGE, done, total)
    kept, took = time.monotonic(), 0.0

    def read(b: int) -> tuple[slice, Any]:
        rows = slice(blocks[b].start, blocks[b].stop)
        return rows, columns.rows_of((data, chosen.weights), rows)

    for b, (rows, (chunk, weights)) in columns.ahead(read, mine):
        one = fisher.add(made, fisher.start(made, moved), placed, chunk, used.ids[rows], weights)
        part, now = _added(part, b, one), time.monotonic()
        if b == mine[-1] or now - kept >= _WAIT * took:
            _keep(path, part, source)
            kept = time.monotonic()
            took = kept - now
        done += len(blocks[b])
        progress(STAGE, done, total)


def _nothing(moved: tree.Flat) -> _Part:
    zeros = {path: np.zeros(leaf.shape, np.float64) for path, leaf in moved.items()}
    return _Part(zeros, (), (), 0, ())


def _added(part: _Part, block: int, one: fisher.FisherSum) -> _Part:
    squares = devices.over_devices(one.squares)
    return _Part(
        {path: x + squares[path] for path, x in part.squares.items()},
        (*part.blocks, block),
        (*part.weights, one.weight),
        part.count + one.count,
        (*part.left_out, *one.left_out),
    )


def _keep(path: Place, part: _Part, source: Mapping[str, Any]) -> None:
    lists = {name: list(getattr(part, name)) for name in ("blocks", "weights", "left_out")}
    artifact.save(path, part.squares, source, {**lists, "count": part.count})


def _read(path: Place, source: Mapping[str, Any]) -> _Part:
    squares, notes = artifact.load(path, source)
    left_out = tuple((i, d, reason) for i, d, reason in notes["left_out"])
    return _Part(squares, tuple(notes["blocks"]), tuple(notes["weights"]), notes["count"], left_out)


def _files(folder: Place) -> list[Place]:
    """The parts of all processes that there ever were."""
    return places.listed(folder, ".safetensors")


def _blocks_in(folder: Place, source: Mapping[str, Any]) -> set[int]:
    """The blocks that some part has; no array is read."""
    found: set[int] = set()
    for path in _files(folder):
        found.update(artifact.notes_of(path, source)["blocks"])
    return found


def _save(
    moved: tree.Flat,
    chosen: FisherRows,
    folder: Place,
    path: Place,
    source: Mapping[str, Any],
) -> None:
    """Adds the parts up, one in memory at a time, and keeps the Fisher information."""
    total = _nothing(moved)
    for file in _files(folder):
        part = _read(file, source)
        total = _Part(
            {name: x + part.squares[name] for name, x in total.squares.items()},
            *(getattr(total, n) + getattr(part, n) for n in _Part._fields[1:]),
        )
    n = len(chosen.rows)
    if sorted(total.blocks) != list(range(len(blocks_of(n)))):
        raise InputError(
            f"{folder}: its parts do not hold each of {len(blocks_of(n))} blocks once: another run "
            "writes there, too. End it, delete the folder, and run again"
        )
    left_out = tuple(sorted(total.left_out))
    mean = fisher.information(
        fisher.FisherSum(
            {name: x[None] for name, x in total.squares.items()},
            total.count,
            math.fsum(total.weights),  # the same in any order
            left_out,
        )
    )
    counted = {"tracks": chosen.tracks} | ({} if n == chosen.tracks else {"units": n})
    notes = {**counted, "draws": total.count, "left_out": [list(x) for x in left_out]}
    artifact.save(path, {p: x.astype(moved[p].dtype) for p, x in mean.items()}, source, notes)
