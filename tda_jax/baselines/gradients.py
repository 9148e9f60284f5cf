"""Mean gradients of tracks, as rows of a matrix, and their random projection.

A row is the mean over a track's draws of the gradient of its loss, or of another number that the
model gives. It is a function of (seed, domain, track id) alone, but for rounding. Where the matrix
(n, P) is too large, it is projected to (n, d) some tracks at a time, and never exists as a whole.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64

from tda_jax import devices, keys
from tda_jax import params as tree
from tda_jax.attribution.contract import Terms, loss_of
from tda_jax.attribution.rows import Layout, Row, layout, rows_of, terms_of_draw
from tda_jax.baselines.contract import Task
from tda_jax.errors import InputError
from tda_jax.examples import Example
from tda_jax.precision import working_dtype

Of = Literal["loss", "output"]

COORDINATES = 4096  # of a block of the projection; its signs depend on it
_HELD = 2**27  # numbers of gradients that are on the host at once: 512 MiB
_SHOWN = 3


class Projection(NamedTuple):
    """A random projection P -> d by signs that keeps inner products in expectation.

    x ↦ S x / sqrt(d), S of independent signs (Achlioptas 2003, doi 10.1016/S0022-0000(03)00025-4).
    The products of x and y have the variance (|x|² |y|² + (x·y)² - 2 Σ x² y²) / d.

    Attributes:
        dimension: d.
        seed: of the signs.
    """

    dimension: int
    seed: int


class GradientPass(NamedTuple):
    """A compiled pass over the draws of tracks.

    Attributes:
        mapped: the row function over devices.
        layout: how draws lie in rows.
        draws: of each track.
        placed: the parameters and the root key, on the devices.
        spans: path -> its columns; the paths rise.
        projection: what the matrix is projected by; None for none.
    """

    mapped: devices.RowMap
    layout: Layout
    draws: keys.Draws
    placed: Any
    spans: Mapping[str, slice]
    projection: Projection | None


def make_gradients(
    task: Task,
    pattern: str,
    draws: keys.Draws,
    domain: keys.Domain,
    of: Of = "loss",
    projection: Projection | None = None,
) -> GradientPass:
    """Prepares a pass; it compiles at its first run and then serves any tracks.

    Args:
        task: its model, seed, batch and devices count.
        pattern: of the paths of the parameters, see `params.split`.
        draws: of each track.
        domain: what the draws are for.
        of: "loss", the loss of the draw; "output", the mean square of the prediction over the
            elements that the mask keeps, ‖ε_θ‖² (Zheng et al. 2024, arXiv 2311.00500).
        projection: to project by; None for gradients as they are.

    Raises:
        InputError: the pattern selects nothing; `of` is neither; a number is below 1.
    """
    if of not in ("loss", "output"):
        raise InputError(f"of = {of!r} has no gradient; give 'loss' or 'output'")
    if draws.replicates < 1 or draws.strata < 1:
        raise InputError(f"{draws} is no draw of a track; give 1 replicate and 1 stratum at least")
    if projection is not None and projection.dimension < 1:
        raise InputError(f"a projection to {projection.dimension} numbers; give 1 at least")
    moved, rest = tree.split(task.model.params, pattern)
    laid = layout(draws.count, task.batch)
    mapped = devices.row_map(_row_gradient(task, draws.strata, of), task.used, laid.rows)
    placed = devices.replicate((moved, rest, keys.root(task.seed, domain)), task.used)
    paths = sorted(moved)
    ends = np.cumsum([0, *(np.size(moved[path]) for path in paths)]).tolist()
    spans = dict(zip(paths, map(slice, ends[:-1], ends[1:]), strict=True))
    return GradientPass(mapped, laid, draws, placed, spans, projection)


def mean_gradients(
    made: GradientPass, examples: Example, ids: Sequence[str]
) -> Float32[np.ndarray, "n width"]:
    """The mean gradient of each track.

    Args:
        made: from `make_gradients`.
        examples: the tracks, with a leading axis of n.
        ids: n names, which their draws depend on.

    Returns:
        One row for each track: its P parameters, flattened in the order of their paths, or the d
        numbers of their projection.

    Raises:
        InputError: the gradient of a track is not finite.
    """
    width = next(reversed(made.spans.values())).stop
    blocks = made.draws.count // made.layout.per_row
    full = -(-len(made.mapped.devices) * made.mapped.batch // blocks)  # no batch is mostly padding
    some = max(full, _HELD // (width * blocks))
    parts = []
    for start in range(0, len(ids), some):
        chosen = slice(start, start + some)
        here = jax.tree.map(lambda x, c=chosen: x[c], examples)
        rows = _plain(made, here, ids[chosen])
        parts.append(rows if made.projection is None else project(made.projection, rows))
    return np.concatenate(parts)


def spans_of(made: GradientPass, params: Mapping[str, Any], pattern: str) -> list[slice]:
    """The columns of the parameters that a pattern selects, neighbours joined.

    Raises:
        InputError: the pattern selects nothing, or a parameter that the pass leaves out.
    """
    chosen, _ = tree.split(params, pattern)
    lacking = sorted(chosen.keys() - made.spans.keys())
    if lacking:
        raise InputError(f"this pass has no gradient of {lacking[:_SHOWN]}; widen its pattern")
    joined: list[slice] = []
    for span in (made.spans[path] for path in sorted(chosen)):
        if joined and joined[-1].stop == span.start:
            joined[-1] = slice(joined[-1].start, span.stop)
        else:
            joined.append(span)
    return joined


def products(
    x: Float32[np.ndarray, "m width"], y: Float32[np.ndarray, "n width"], spans: Sequence[slice]
) -> Float64[np.ndarray, "m n"]:
    """Inner products over some columns, summed in float64."""
    parts = (_cut(span) for span in spans)
    found = np.zeros((len(x), len(y)))
    for piece in (piece for part in parts for piece in part):
        found += x[:, piece].astype(np.float64) @ y[:, piece].astype(np.float64).T
    return found


def squares(x: Float32[np.ndarray, "n width"], spans: Sequence[slice]) -> Float64[np.ndarray, " n"]:
    """Squared norms over some columns, summed in float64."""
    pieces = (piece for span in spans for piece in _cut(span))
    parts = (np.square(x[:, piece].astype(np.float64)).sum(1) for piece in pieces)
    return sum(parts, start=np.zeros(len(x)))


def refuse_zeros(rows: Float[np.ndarray, "n width"], what: str) -> None:
    """Refuses gradients that are zero for every track.

    Raises:
        InputError: they are, so that no score could tell one track from another.
    """
    if not np.any(rows):
        raise InputError(
            f"the gradients of {what} are zero for all {len(rows)} tracks; choose parameters that "
            "the loss depends on"
        )


def project(
    projection: Projection, rows: Float32[np.ndarray, "n width"]
) -> Float32[np.ndarray, "n d"]:
    """Projects rows; block by block, so that P x d signs are never held at once.

    Raises:
        InputError: a result is not finite.
    """
    n, width = rows.shape
    root = keys.root(projection.seed, keys.Domain.PROJECTION)
    padded = 1 << (n - 1).bit_length()  # few shapes, and so few compilations
    total = jnp.zeros((padded, projection.dimension), jnp.float32)
    for block, start in enumerate(range(0, width, COORDINATES)):
        piece = np.zeros((padded, COORDINATES), np.float32)
        piece[:n, : min(COORDINATES, width - start)] = rows[:, start : start + COORDINATES]
        total = _add_block(total, piece, root, np.uint32(block), projection.dimension)
    found = np.asarray(total)[:n] / np.sqrt(np.float32(projection.dimension))
    if not np.isfinite(found).all():
        raise InputError(
            f"gradients of up to {np.abs(rows).max():.3g} have a projection that is not finite; "
            "check the scale of latents and weights"
        )
    return found


@functools.partial(jax.jit, static_argnums=2)
def signs(
    root: keys.Root, block: Array | np.uint32, dimension: int
) -> Float32[Array, "coordinates d"]:
    """The signs, -1 or 1, of one block of coordinates: a function of (root, block) alone."""
    key = jax.random.fold_in(jax.random.wrap_key_data(root, impl="threefry2x32"), block)
    with jax.threefry_partitionable(True):  # the value must not depend on that setting
        words = jax.random.bits(key, (COORDINATES, -(-dimension // 32)), jnp.uint32)
    bits = (words[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)[None, None]) & np.uint32(1)
    return 1 - 2 * bits.reshape(COORDINATES, -1)[:, :dimension].astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=4)
def _add_block(total: Array, piece: Array, root: Array, block: Array, dimension: int) -> Array:
    product = jnp.matmul(piece, signs(root, block, dimension), precision="highest")
    return total + product


def _plain(made: GradientPass, examples: Example, ids: Sequence[str]) -> np.ndarray:
    """The mean gradients of tracks, (n, P)."""
    count, per_row = made.draws.count, made.layout.per_row
    rows = rows_of(examples, keys.track_words(ids), count, per_row)
    sums = devices.results(made.mapped, made.placed, rows, len(ids) * (count // per_row))
    by_track = sums.reshape(len(ids), count // per_row, -1)
    found = (by_track.sum(1, dtype=np.float64) / count).astype(np.float32)
    bad = [name for name, fine in zip(ids, np.isfinite(found).all(1), strict=True) if not fine]
    if bad:
        raise InputError(
            f"the gradients of {bad[:_SHOWN]} ({len(bad)} in all) are not finite; check the scale "
            "of their latents, their conditions and the weights"
        )
    return found


def _row_gradient(task: Task, strata: int, of: Of) -> Callable[[Any, Row], Array]:
    """(parameters, row) -> the sum over the row's draws of the flattened gradient."""
    number = loss_of if of == "loss" else _mean_square

    def row_gradient(placed: Any, row: Row) -> Float[Array, " width"]:
        moved, rest, root = placed

        def total(moved: tree.Flat) -> Float[Array, ""]:
            params = tree.merge(moved, rest)
            of_draws = jax.vmap(
                lambda d: number(terms_of_draw(task.model, strata, params, root, row, d))
            )
            return of_draws(row.draws).sum()

        found = jax.grad(total)(moved)
        flat = [found[path].astype(working_dtype(found[path].dtype)) for path in sorted(found)]
        return jnp.concatenate([x.reshape(-1) for x in flat])

    return row_gradient


def _mean_square(terms: Terms) -> Float[Array, ""]:
    """The mean square of the prediction over the elements that the mask keeps."""
    return loss_of(terms._replace(target=jnp.zeros_like(terms.target)))


def _cut(span: slice) -> list[slice]:
    """A span in pieces, so that little of a matrix is in float64 at once."""
    starts = range(span.start, span.stop, COORDINATES)
    return [slice(a, min(a + COORDINATES, span.stop)) for a in starts]
