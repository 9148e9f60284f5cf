"""What `experiments.attribute` saved, read back: the summary, and the table of each query."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64
from pyarrow import parquet

from tda_jax.errors import InputError

LIKENESSES = {
    "log_mel_similarity": "log-mel similarity",
    "latent_similarity": "latent similarity",
    "condition_similarity": "caption similarity",
}
"""Columns that plain similarity has in a table, where it was computed, and what they are called."""

_NEEDED = ("id", "score", "standard_error", "direction_error", "p_value", "q_value", "member")
_RESULTS = {*_NEEDED, "rank", "distinct", "odd", "even", "second_order", "loss_before"}
_RESULTS |= {"loss_after", "score_max", "max_start", *LIKENESSES}
# Metadata that have places of their own.
_SAID = {"title", "artist", "caption", "window_start", "track", "file_name"}


class Track(NamedTuple):
    """One row of a query's table, as a report shows it.

    Attributes:
        id: of the track.
        rank: among members; None for a decoy.
        score: higher is more support.
        error: one standard error of the score, from the sweep's draws and those of the query's
            direction together; nan where neither is known.
        p_value: how often a decoy scores as high.
        q_value: false-discovery rate; nan for the query itself and for decoys.
        member: whether the model was trained on it.
        own: whether it is the query itself.
        title: None where the metadata does not say.
        artist: likewise.
        captions: any number.
        start: seconds from the start of its file where the window begins that scores highest.
        file_name: relative to the folder of audio, or None.
        likeness: plain similarity to the query by the names of `LIKENESSES`, of those that are
            there; nan where there is none.
        about: all other metadata, as text.
    """

    id: str
    rank: int | None
    score: float
    error: float
    p_value: float
    q_value: float
    member: bool
    own: bool
    title: str | None
    artist: str | None
    captions: tuple[str, ...]
    start: float
    file_name: str | None
    likeness: Mapping[str, float]
    about: Mapping[str, str]


class Query(NamedTuple):
    """What was saved of one query.

    Attributes:
        id: of the query.
        numbers: what `attribution.summary` says of it.
        table: sorted by score, highest first; tracks without a score last.
        own: the row of the track that the query itself is or is a part of, or None.
    """

    id: str
    numbers: Mapping[str, Any]
    table: pa.Table
    own: int | None

    def column(self, name: str) -> Float64[np.ndarray, " n"]:
        """A column of numbers; nan where there is none."""
        return self.table[name].cast(pa.float64()).to_numpy().astype(np.float64)

    @property
    def members(self) -> Bool[np.ndarray, " n"]:
        """Rows of tracks that the model was trained on."""
        return np.array(self.table["member"].to_pylist(), bool)

    @property
    def others(self) -> Bool[np.ndarray, " n"]:
        """All rows but that of the query itself."""
        return np.arange(self.table.num_rows) != (-1 if self.own is None else self.own)


class Results(NamedTuple):
    """What was saved of a run.

    Attributes:
        summary: the content of `summary.json`.
        queries: in the order of the run.
    """

    summary: Mapping[str, Any]
    queries: tuple[Query, ...]


def read(workdir: Path) -> Results:
    """Reads the results of a run of `experiments.attribute`.

    Raises:
        InputError: the folder is not of such a run, or a file of it is missing or damaged.
    """
    summary = read_object(
        workdir / "summary.json", ("queries", "settings"), "a workdir of experiments.attribute"
    )
    if not summary["queries"]:
        raise InputError(f"{workdir}/summary.json: has no query; attribute one at least")
    return Results(summary, tuple(_query(workdir, numbers) for numbers in summary["queries"]))


def read_object(path: Path, keys: tuple[str, ...], wanted: str) -> dict[str, Any]:
    """Reads a JSON file that must hold an object with some keys.

    Args:
        path: of the file.
        keys: that it must have.
        wanted: what to give instead, for the message.

    Raises:
        InputError: it cannot be read, is no JSON, or lacks a key.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give {wanted}") from error
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise InputError(f"{path}: has no {missing[0]!r}; give {wanted}")
    return found


def top_rows(query: Query, count: int) -> list[int]:
    """The rows with the highest scores, at most so many; none without a score."""
    return [int(i) for i in np.flatnonzero(~np.isnan(query.column("score")))[:count]]


def track(query: Query, row: int) -> Track:
    """A row of a query's table."""
    found = {name: column[0] for name, column in query.table.slice(row, 1).to_pydict().items()}
    numbers = {name: _float(found[name]) for name in ("score", "p_value", "q_value")}
    return Track(
        id=found["id"],
        rank=found["rank"],
        error=_both(_float(found["standard_error"]), _float(found["direction_error"])),
        member=bool(found["member"]),
        own=row == query.own,
        title=_text(found, "title"),
        artist=_text(found, "artist"),
        captions=_captions(found.get("caption")),
        start=_start(found),
        file_name=_text(found, "file_name"),
        likeness={
            words: _float(found[name]) for name, words in LIKENESSES.items() if name in found
        },
        about={
            name: str(value)
            for name, value in found.items()
            if name not in _RESULTS | _SAID and value is not None
        },
        **numbers,
    )


def _query(workdir: Path, numbers: Mapping[str, Any]) -> Query:
    path = workdir / numbers["folder"] / "scores.parquet"
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); run experiments.attribute on {workdir} again"
        ) from error
    missing = [name for name in (*_NEEDED, "rank") if name not in table.column_names]
    if missing or not table.num_rows:
        what = f"has no column {missing[0]!r}" if missing else "has no row"
        raise InputError(f"{path}: {what}; run experiments.attribute on {workdir} again")
    return Query(numbers["id"], numbers, table, _own(numbers, table))


def _own(numbers: Mapping[str, Any], table: pa.Table) -> int | None:
    """The row of the track that the query is or is a part of; its id alone would not tell."""
    own, column = numbers["own"], table["id"].to_pylist()
    return column.index(own) if own in column else None


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _both(sweep: float, direction: float) -> float:
    """Errors of independent causes together; a cause that was not measured is left out."""
    errors = [error for error in (sweep, direction) if math.isfinite(error)]
    return math.hypot(*errors) if errors else math.nan


def _text(found: Mapping[str, Any], name: str) -> str | None:
    value = found.get(name)
    return None if value is None or not str(value).strip() else str(value)


def _listed(value: Any) -> list[Any]:
    """What a cell holds: tracks of several windows have lists, which tables keep as JSON."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:  # text that only looks like a list
            return [value]
    return value if isinstance(value, list) else [value]


def _captions(value: Any) -> tuple[str, ...]:
    return tuple(str(text) for text in _listed(value) if text is not None and str(text).strip())


def _start(found: Mapping[str, Any]) -> float:
    """Where the window that scores highest begins; of one window, where it begins."""
    places = [found.get("max_start"), *_listed(found.get("window_start"))]
    numbers = [place for place in map(_place, places) if math.isfinite(place)]
    return max(0.0, numbers[0]) if numbers else 0.0


def _place(value: Any) -> float:
    """A number; of a column in which others have lists, it is text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
