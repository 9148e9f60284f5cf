"""What a run keeps, where, and what each result was made from.

WORKDIR/fisher.safetensors                        F over the group
WORKDIR/before/                                   store: losses at θ0 ("exact" only)
WORKDIR/queries/QUERY/gradient/BLOCK.safetensors  a block of the query's gradient
WORKDIR/queries/QUERY/calibration.safetensors     the query's own response
WORKDIR/queries/QUERY/step.safetensors            Δ ("exact" only)
WORKDIR/queries/QUERY/sweep/                      store: what the sweep gave for this query

Gradients and Δ, by far the most of a large network, go once the query's sweep is whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tda_jax import artifact, examples, fingerprint, places, store
from tda_jax.attribution import information, passes, prepare
from tda_jax.attribution.contract import Model
from tda_jax.attribution.settings import Compute, Settings, made_of
from tda_jax.manifest import MANIFEST
from tda_jax.places import Place

QUERIES = "queries"
FISHER, GRADIENT, CALIBRATION, STEP, SWEEP, BEFORE = (
    "fisher.safetensors",
    "gradient",
    "calibration.safetensors",
    "step.safetensors",
    "sweep",
    "before",
)

_FISHER = ("group", "fisher_draws", "fisher_tracks", "mask_unlearn", "seed")
_SWEEP = ("replicates", "strata", "mask_sweep", "seed")
_DIRECTION = (*_FISHER, "query_draws", "blocks", "damping", "corpus_size")
_LINEAR = (*_DIRECTION, *_SWEEP, "method", "dtype", "second_order")
_CALIBRATION = (*_DIRECTION, "replicates", "strata", "dtype")
_STEP = (*_CALIBRATION, "rise", "rate", "steps")
_EXACT = (*_STEP, *_SWEEP, "method", "frames")
_COMPUTES = ("tda_jax.attribution.by_unlearning", "tda_jax.attribution.unet")


class Job(NamedTuple):
    """What the steps of one run share.

    Attributes:
        model: what made the queries.
        corpus: its tracks.
        settings: what decides the scores.
        compute: devices, batches and processes.
        workdir: where results are kept.
        corpus_print: the fingerprint of the corpus.
        tracks_print: see `information.fisher_tracks_print`.
        code: fingerprints of code and versions.
    """

    model: Model
    corpus: examples.Corpus
    settings: Settings
    compute: Compute
    workdir: Place
    corpus_print: str
    tracks_print: Mapping[str, str]
    code: Mapping[str, Any]


def job_of(
    model: Model, corpus: examples.Corpus, settings: Settings, compute: Compute, workdir: Place
) -> Job:
    """A job, with the fingerprints that its results name."""
    return Job(
        model,
        corpus,
        settings,
        compute,
        workdir,
        examples.corpus_fingerprint(corpus),
        information.fisher_tracks_print(corpus),
        {"code": fingerprint.of_code(*_COMPUTES), "versions": fingerprint.versions()},
    )


def query_folder(workdir: Place, query: str) -> Place:
    """Where the results of a query lie."""
    return workdir / QUERIES / prepare.slug(query)


def whole_sweep(job: Job, query: examples.Corpus) -> store.Store | None:
    """The sweep of a query that is whole, so that nothing is left to do for it; else None.

    Raises:
        InputError: what is there is of something else.
    """
    folder = query_folder(job.workdir, query.ids[0])
    if not all(places.exists(folder / name) for name in (CALIBRATION, f"{SWEEP}/{MANIFEST}")):
        return None
    found = open_sweep(job, query)
    return None if store.missing(found) else found


def drop_directions(job: Job, query: examples.Corpus) -> None:
    """Deletes what only a query's sweep needed, once that is whole and nobody reads it."""
    folder = query_folder(job.workdir, query.ids[0])
    places.delete_folder(folder / GRADIENT)
    if places.exists(folder / STEP):
        places.delete(folder / STEP)


def sweep_parts(workdir: Place) -> None:
    """Deletes what a kill left of artifacts that were being written, before a run begins."""
    for pattern in ("*", f"{QUERIES}/*/*", f"{QUERIES}/*/{GRADIENT}/*"):
        artifact.sweep(workdir, pattern)


def fisher_source(job: Job) -> dict[str, Any]:
    """What the Fisher information is made from."""
    return _source(job, _FISHER)


def gradient_source(job: Job, query: examples.Corpus) -> dict[str, Any]:
    """What the blocks of a query's gradient are made from."""
    return prepare.query_source(job.model, query, job.settings, job.code)


def calibration_source(job: Job, query: examples.Corpus) -> dict[str, Any]:
    """What a query's own response is made from."""
    return _query_source(job, query, _CALIBRATION)


def step_source(job: Job, query: examples.Corpus) -> dict[str, Any]:
    """What a query's step is made from."""
    return _query_source(job, query, _STEP)


def open_before(job: Job) -> store.Store:
    """The store of losses at θ0, shared by all queries and groups."""
    source = _source(job, (*_SWEEP, "frames"))
    return _open(job, job.workdir / BEFORE, _losses(job), source)


def open_sweep(job: Job, query: examples.Corpus) -> store.Store:
    """The store of what a sweep gives for a query."""
    folder = query_folder(job.workdir, query.ids[0]) / SWEEP
    if job.settings.method == "exact":
        return _open(job, folder, _losses(job), _query_source(job, query, _EXACT))
    fields = passes.linear_fields(job.settings)
    return _open(job, folder, fields, _query_source(job, query, _LINEAR))


def _losses(job: Job) -> list[store.Field]:
    return passes.loss_fields(job.settings, job.corpus.examples.latent.shape[1])


def _open(
    job: Job, folder: Place, fields: Sequence[store.Field], source: Mapping[str, Any]
) -> store.Store:
    return store.open_store(folder, job.corpus.ids, fields, source, job.compute.chunk)


def _source(job: Job, names: Sequence[str]) -> dict[str, Any]:
    weighed = job.tracks_print if set(_FISHER) <= set(names) else {}
    return {**made_of(job.model, job.corpus_print, job.settings, *names), **weighed, **job.code}


def _query_source(job: Job, query: examples.Corpus, names: Sequence[str]) -> dict[str, Any]:
    """What a result of one query over the corpus was made from."""
    own = gradient_source(job, query)
    parts = {f"query_{name}": own[name] for name in ("corpus", "query", "query_frames")}
    return {**_source(job, names), **parts}
