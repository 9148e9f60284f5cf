"""The settings of attribution by unlearning: what decides a score, and what only decides speed."""

import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from tda_jax import keys
from tda_jax import params as tree
from tda_jax.attribution.contract import Model, split_group
from tda_jax.attribution.units import tracks_of
from tda_jax.errors import InputError
from tda_jax.examples import Corpus
from tda_jax.hosts import ALONE, Hosts

Method = Literal["linearised", "exact"]
Weighting = Literal["uniform", "standardised", "ratio"]
Dtype = Literal["float32", "bfloat16", "float64"]


class Settings(NamedTuple):
    """What a score depends on, beside model, corpus and query. Every result names it.

    Attributes:
        corpus_size: N, the size of the model's training set in tracks, also where only a part is
            scored.
        group: the parameters that a step may move.
        method: "linearised", one forward-mode pass for all learning rates; or "exact", the losses
            under the moved parameters.
        rise: ρ, the share by which the query's own loss is predicted to rise: the scale-free step.
        rate: a raw learning rate instead; None for the scale-free step.
        steps: ascent steps, each with that learning rate. More than one needs "exact".
        damping: c; the Fisher information is damped by c times its mean over the group.
        fisher_draws: draws for the Fisher information, of each row: of a whole track, or of each
            of its units (windows and captions), which together weigh as much.
        fisher_tracks: a random subset of so many tracks for it, with all their units; None for
            every member.
        query_draws: draws of the query's gradient, over all blocks.
        blocks: independent blocks of those draws, for the noise in the step.
        replicates: independent draws in each stratum of the sweep, 4 at least.
        strata: equal parts of the schedule in the sweep, a multiple of 10.
        mask_unlearn: M_U, padding does not count in the Fisher information or the query gradient.
        mask_sweep: M_L, padding does not count in the sweep.
        weighting: of the timestep bins. It changes no stored loss, only the score made of them.
        dtype: of the network in the linearised pass: "float32", "bfloat16" or "float64".
        second_order: also keep the exact second-order term that the linearised pass leaves out.
        frames: also keep losses per latent frame; needs "exact".
        seed: of every draw.
    """

    corpus_size: int
    group: str
    method: Method = "linearised"
    rise: float = 0.1
    rate: float | None = None
    steps: int = 1
    damping: float = 0.01
    fisher_draws: int = 10
    fisher_tracks: int | None = None
    query_draws: int = 2048
    blocks: int = 8
    replicates: int = 4
    strata: int = 20
    mask_unlearn: bool = True
    mask_sweep: bool = False
    weighting: Weighting = "uniform"
    dtype: Dtype = "float32"
    second_order: bool = False
    frames: bool = False
    seed: int = 0

    @property
    def draws(self) -> keys.Draws:
        """The draws of the sweep."""
        return keys.Draws(self.replicates, self.strata)


class Compute(NamedTuple):
    """What changes speed and memory, and results by rounding alone.

    Attributes:
        devices: local devices to run on.
        batch: latents in the network at a time, on one device: (track, draw) pairs, and in the
            linearised pass the tangents of a pair along each direction, too (one pair at least).
        fisher_batch: pairs in the Fisher information, where each holds a gradient of the group;
            and draws in a query's gradient and calibration.
        queries_per_pass: queries that one pass over the corpus serves. The linearised pass holds
            as many times `blocks` directions of the group.
        chunk: tracks that are computed, stored and checked together.
        hosts: this process among those that share the work.
    """

    devices: tuple[jax.Device, ...]
    batch: int = 8
    fisher_batch: int = 4
    queries_per_pass: int = 5
    chunk: int = 64
    hosts: Hosts = ALONE


def refuse(model: Model, corpus: Corpus, queries: Corpus, settings: Settings) -> None:
    """Refuses settings that cannot be carried out, before any work.

    Raises:
        InputError: a value is out of range or does not fit the model, corpus or another setting;
            rows of the corpus cannot be units of one track.
    """
    split_group(model, settings.group)
    refuse_values(settings)
    _refuse_types(model, settings)
    tracks = int(tracks_of(corpus).members.sum())
    if settings.corpus_size < tracks:
        raise InputError(
            f"N = {settings.corpus_size} is smaller than the {tracks} training tracks given; N is "
            "the size of the model's whole training set"
        )
    if not queries.ids:
        raise InputError("no query is given; give one at least")
    if tracks == 0:
        raise InputError(
            'every track is a decoy; give training tracks, too (of a dataset: the split "train")'
        )
    if settings.fisher_tracks is not None and not 1 <= settings.fisher_tracks <= tracks:
        raise InputError(f"fisher_tracks = {settings.fisher_tracks}; give 1 to {tracks}")
    wanted, found = corpus.examples.latent.shape[1:], queries.examples.latent.shape[1:]
    if wanted != found:
        raise InputError(f"queries have latents {found} and tracks {wanted}; give one shape")
    _refuse_conditions(corpus, queries)


def refuse_values(settings: Settings) -> None:
    """Refuses settings that fit no model and no corpus.

    Raises:
        InputError: a value is out of range, or does not fit another setting.
    """
    keys.bin_of(settings.strata)
    keys.root(settings.seed, keys.Domain.SWEEP)
    if settings.corpus_size < 1:
        raise InputError(
            f"N = {settings.corpus_size}; give the size of the model's whole training set"
        )
    _refuse_numbers(settings)
    _refuse_choices(settings)
    _refuse_combinations(settings)


def refuse_compute(compute: Compute, unset: bool = False) -> None:
    """Refuses sizes that nothing can be computed with.

    Args:
        compute: sizes.
        unset: whether batches and queries of a pass may be 0, to be chosen by `sizes.fitting`.

    Raises:
        InputError: one is too small.
    """
    for name in ("batch", "fisher_batch", "queries_per_pass", "chunk"):
        least = 0 if unset and name != "chunk" else 1
        if getattr(compute, name) < least:
            for_fit = ", or 0 for what fits" if not least else ""
            raise InputError(f"{name} = {getattr(compute, name)}; give 1 at least{for_fit}")


def _refuse_numbers(settings: Settings) -> None:
    positive = {"rise": settings.rise, "damping": settings.damping}
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise InputError(f"{name} = {value}; give a finite number above 0")
    if settings.rate is not None and (settings.rate == 0 or not math.isfinite(settings.rate)):
        raise InputError(f"rate = {settings.rate}; give a finite number other than 0")
    least = {"steps": 1, "fisher_draws": 1, "replicates": 4, "blocks": 2}
    for name, minimum in least.items():
        value = getattr(settings, name)
        if value < minimum:
            raise InputError(f"{name} = {value}; give {minimum} at least")
    if settings.query_draws < settings.blocks or settings.query_draws % settings.blocks:
        raise InputError(
            f"query_draws = {settings.query_draws} is no multiple of blocks = {settings.blocks}"
        )


def _refuse_choices(settings: Settings) -> None:
    for name, kind in (("method", Method), ("weighting", Weighting), ("dtype", Dtype)):
        if getattr(settings, name) not in get_args(kind):
            given, known = getattr(settings, name), list(get_args(kind))
            raise InputError(f"{name} = {given!r}; choose one of {known}")


def _refuse_combinations(settings: Settings) -> None:
    linearised = settings.method == "linearised"
    if settings.steps > 1 and linearised:
        raise InputError(f"steps = {settings.steps} needs method = 'exact': one step is a line")
    if settings.steps > 1 and (settings.rate is None or abs(settings.rate) >= 1):
        raise InputError(
            f"steps = {settings.steps} with rate = {settings.rate}: each step takes a share of "
            "`rate` of the way, so give a raw learning rate between -1 and 1, or one step"
        )
    if settings.dtype == "bfloat16" and not linearised:
        raise InputError(
            "dtype = 'bfloat16' needs method = 'linearised': it rounds a small step away"
        )
    if settings.frames and linearised:
        raise InputError("frames = True needs method = 'exact'")
    if settings.dtype == "float64" and not jax.config.jax_enable_x64:
        raise InputError("dtype = 'float64' needs jax_enable_x64")


def _refuse_types(model: Model, settings: Settings) -> None:
    """Sums and small steps are lost in parameters of 16 bits."""
    found = {path: jnp.dtype(x.dtype) for path, x in tree.flatten(model.params).items()}
    floats = {p: d for p, d in found.items() if jnp.issubdtype(d, jnp.floating)}
    short = [f"{path} is {dtype}" for path, dtype in floats.items() if dtype.itemsize < 4]
    if short:
        raise InputError(
            f"parameters of 16 bits ({short[0]}, {len(short)} in all): the Fisher information and "
            "the step would be rounded away; give them in float32, and dtype = 'bfloat16' for a "
            "network in half precision"
        )
    if settings.dtype == "float64" and settings.method == "exact":
        other = [f"{path} is {dtype}" for path, dtype in floats.items() if dtype != np.float64]
        if other:
            raise InputError(
                f"dtype = 'float64' with method = 'exact' needs parameters in float64; {other[0]}"
            )


def _refuse_conditions(corpus: Corpus, queries: Corpus) -> None:
    shapes = [
        jax.tree.map(lambda x: (x.shape[1:], str(x.dtype)), c.examples.condition)
        for c in (corpus, queries)
    ]
    if jax.tree.structure(shapes[0]) != jax.tree.structure(shapes[1]) or shapes[0] != shapes[1]:
        raise InputError(
            f"queries have conditions {shapes[1]} and tracks {shapes[0]}; give the same parts in "
            "the same shapes"
        )


def made_of(model: Model, corpus: str, settings: Settings, *names: str) -> dict[str, Any]:
    """What a result was made from, as far as these settings decide it.

    Args:
        model: its fingerprint counts.
        corpus: the fingerprint of the tracks.
        settings: read for `names`.
        names: the settings that the result depends on.
    """
    chosen = {name: getattr(settings, name) for name in sorted(names)}
    return {"checkpoint": model.fingerprint, "corpus": corpus, "config": chosen}
