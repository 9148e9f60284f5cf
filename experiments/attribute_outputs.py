"""What a run of `experiments.attribute` writes and says."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.attribute_inputs import Inputs
from tda_jax import compressed, examples, fingerprint
from tda_jax.artifact import whole_file
from tda_jax.attribution import calibration, summary
from tda_jax.attribution.by_unlearning import Run
from tda_jax.attribution.contract import Model
from tda_jax.attribution.plan import Stage
from tda_jax.attribution.table import Table, frame_rises
from tda_jax.attribution.units import Tracks, counts, outline, rows_of
from tda_jax.attribution.workdir import query_folder
from tda_jax.examples import Corpus
from tda_jax.export import Columns, with_metadata, write_csv, write_parquet
from tda_jax.places import Place
from tda_jax.report import figures

_MIB, _GIB = 2**20, 2**30
_NAMED = 3  # tracks that a line of a query names


def describe(inputs: Inputs, stages: Mapping[str, Stage]) -> str:
    """What is about to be done, in lines."""
    n, rows = counts(inputs.tracks), len(inputs.corpus.ids)
    several = ""
    if rows > n.members + n.decoys:
        several = f" ({n.windows:,} windows, {n.captions:,} captions: {rows:,} units)"
    lines = [
        f"{n.members:,} tracks of N = {inputs.settings.corpus_size:,}, {n.decoys:,} decoys"
        f"{several}, {len(inputs.queries.ids):,} queries; {inputs.settings.method}, group "
        f"{inputs.settings.group}; on {len(inputs.compute.devices)} device(s)"
        + f" of each of {inputs.compute.hosts.count} processes"
        * (inputs.compute.hosts.count > 1),
        f"  at a time: batch {inputs.compute.batch}, fisher_batch {inputs.compute.fisher_batch}, "
        f"queries_per_pass {inputs.compute.queries_per_pass}",
    ]
    for name, stage in stages.items():
        needs = "" if stage.bytes is None else f", {size(stage.bytes)} on each device"
        lines.append(f"  {name:<24} {stage.pairs:>12,} draws{needs}")
    return "\n".join(lines)


def write_query(
    workdir: Place,
    query: str,
    table: Table,
    beside: Columns,
    corpus: Corpus,
    tracks: Tracks,
    run: Run,
) -> Place:
    """Writes the table, the figures and, where there are any, the frame maps of a query.

    The rows of `frame_rise.npy` follow `scores.csv`: one for each track, or, where tracks have
    several units, one for each of them, by window and then caption within a track. The frames of
    windows are not averaged together. `frame_rise.csv` then names the rows.

    Args:
        workdir: of the run.
        query: its id.
        table: its results.
        beside: other columns in the order of the table's rows, such as similarities.
        corpus: units of tracks.
        tracks: of the corpus.
        run: that the table is of.

    Returns:
        The query's folder.
    """
    folder = query_folder(workdir, query)
    told = compressed.taken(tracks.metadata, np.asarray(table.order))
    columns = with_metadata({**table.columns, **beside}, list(told))
    write_csv(folder / "scores.csv", columns)
    write_parquet(folder / "scores.parquet", columns)
    if len(table.unscored) < len(table.order):
        figures.distribution(folder / "distribution.png", table.columns, query)
        figures.top(folder / "top.png", table.columns, query)
    if "frames" in run.sweeps[query].arrays:
        _write_frames(folder, frame_rises(run, query), rows_of(tracks, table.order), corpus, tracks)
    return folder


class Written(NamedTuple):
    """What is kept of tables that were written.

    Attributes:
        queries: what `summary.json` holds of each.
        lines: what is said of each.
        unscored: ids of tracks without a score for some query.
        left_out: ids of units that were left out of their track's mean for some query.
        decoy_match: how far decoys and members differ, see `calibration.decoy_match`.
    """

    queries: list[dict[str, Any]]
    lines: list[str]
    unscored: set[str]
    left_out: set[str]
    decoy_match: dict[str, Any]


def of_query(query: str, table: Table, inputs: Inputs, run: Run) -> dict[str, Any]:
    """What `summary.json` holds of a query."""
    return {
        **summary.of_query(query, table, *run.directions[query], inputs.settings.steps),
        "folder": str(query_folder(Path(), query)),
        **_about(inputs.queries, query),
    }


def with_query(written: Written, entry: dict[str, Any], table: Table, inputs: Inputs) -> Written:
    """Adds a query to what was written; losses at θ0 are those of the first query's sweep."""
    return Written(
        [*written.queries, entry],
        [*written.lines, line(entry, table)],
        written.unscored | {name for name, _ in table.unscored},
        written.left_out | {name for name, _ in table.left_out},
        written.decoy_match or _decoy_match(inputs.corpus, inputs.tracks, table),
    )


def summarise(
    model: Model, inputs: Inputs, run: Run, written: Written, stages: Mapping[str, Stage]
) -> dict[str, Any]:
    """What `summary.json` holds, but for the seconds of each stage."""
    n = counts(inputs.tracks)
    compute = inputs.compute._asdict() | {"devices": [str(d) for d in inputs.compute.devices]}
    compute["hosts"] = inputs.compute.hosts.count
    return {
        "tracks": n.members,
        "decoys": n.decoys,
        "windows": n.windows,
        "captions": n.captions,
        "queries": written.queries,
        "skipped_queries": [{"id": name, "reason": reason} for name, reason in run.skipped],
        "unscored_tracks": len(written.unscored),
        "left_out_units": len(written.left_out),
        "fisher": run.fisher,
        "warnings": inputs.warnings,
        "decoy_match": written.decoy_match,
        "settings": inputs.settings._asdict(),
        "compute": compute,
        "fingerprints": {
            "checkpoint": model.fingerprint,
            "corpus": examples.corpus_fingerprint(inputs.corpus),
            "queries": examples.corpus_fingerprint(inputs.queries),
            "code": fingerprint.of_code("tda_jax.attribution.table", "tda_jax.attribution.unet"),
            "versions": fingerprint.versions(),
        },
        "stages": {name: stage._asdict() for name, stage in stages.items()},
    }


def _about(queries: Corpus, name: str) -> dict[str, Any]:
    """What is known of a query but its scores: its metadata, and which latent it was."""
    row = queries.ids.index(name)
    metadata = fingerprint.plain(queries.metadata[row], f"metadata of {name}")
    latent = np.asarray(queries.examples.latent[row])
    return {"metadata": metadata, "latent": fingerprint.of_array(latent)}


def write_summary(workdir: Place, content: Mapping[str, Any], name: str = "summary.json") -> Place:
    """Writes a JSON file of results, in place of what was there."""
    path = workdir / name
    with whole_file(path) as part:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
    return path


def line(query: Mapping[str, Any], table: Table) -> str:
    """What is worth reading first of a query."""
    best = zip(table.columns["id"][:_NAMED], table.columns["score"][:_NAMED], strict=True)
    own = [] if query["self_rank"] is None else [f"own rank {query['self_rank']}"]
    parts = [
        *own,
        f"{query['q_below']['0.05']} tracks at q ≤ 0.05",
        f"{_percent(query['concentration'])} of the positive score in the best 1 %",
        *([f"{len(query['unscored'])} tracks without a score"] if query["unscored"] else []),
        *([f"{len(query['left_out'])} units left out"] if query["left_out"] else []),
        "highest: " + ", ".join(f"{name} ({score:.3g})" for name, score in best),
    ]
    return f"{query['id']}: {'; '.join(parts)}"


def _write_frames(
    folder: Place, frames: np.ndarray, rows: np.ndarray, corpus: Corpus, tracks: Tracks
) -> None:
    with whole_file(folder / "frame_rise.npy") as part, part.open("wb") as file:
        np.save(file, frames[rows])
    if len(rows) > len(tracks.ids):
        named = {
            "track": [tracks.ids[tracks.of_unit[i]] for i in rows],
            "id": [corpus.ids[i] for i in rows],
            "window_start": tracks.start[rows],
            "caption": [corpus.metadata[i].get("caption") for i in rows],
        }
        write_csv(folder / "frame_rise.csv", named)


def _decoy_match(corpus: Corpus, tracks: Tracks, table: Table) -> dict[str, Any]:
    """How far member tracks and decoys differ, the losses before unlearning among it."""
    before = np.empty(len(tracks.ids))
    before[table.order] = table.columns["loss_before"]
    found = calibration.decoy_match(outline(corpus, tracks), before)
    return {
        name: {key: value if math.isfinite(value) else None for key, value in d._asdict().items()}
        for name, d in found.items()
    }


def size(count: int) -> str:
    """Bytes in words."""
    return f"{count / _GIB:.2f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f} %"
