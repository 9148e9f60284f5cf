"""Where the recordings of tracks and of generated pieces lie."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tda_jax.corpus.folder import METADATA, list_folder
from tda_jax.errors import InputError
from tda_jax.report.contents import Query, Results, Track, read_object
from tda_jax.report.players import Missing, Recording

_MADE_BY = ("sampler", "steps", "guidance", "negative", "seed")


class Piece(NamedTuple):
    """A query that is no track: generated, or an audio file.

    Attributes:
        prompt: that it was made from.
        recording: of it, or why there is none.
        made_by: settings of the sampler, by name; empty for a file.
        latent: fingerprint of its latent, where it is known.
    """

    prompt: str
    recording: Recording | Missing
    made_by: Mapping[str, Any]
    latent: str | None


class Sources(NamedTuple):
    """Where recordings lie.

    Attributes:
        audio: the folder of audio, or None.
        listed: by the id of a track, its file relative to the folder; of a corpus whose tables do
            not name their files.
        pieces: queries that are no tracks, by id.
    """

    audio: Path | None
    listed: Mapping[str, str]
    pieces: Mapping[str, Piece]


def find(
    results: Results, audio: Path | None, generated: Path | None, query_audio: Path | None
) -> Sources:
    """Finds recordings. None is opened.

    Args:
        results: whose tracks they are of.
        audio: the folder of audio, with `metadata.jsonl` unless the tables name the files.
        generated: the workdir of `experiments.generate`.
        query_audio: the folder of audio of queries that are files.

    Raises:
        InputError: a folder is not there or not what it should be; a generated piece is not the
            one that was attributed under its id.
    """
    listed = {}
    if audio is not None:
        if not audio.is_dir():
            raise InputError(f"{audio}: no such folder; give --config.audio, the folder of audio")
        named = all("file_name" in query.table.column_names for query in results.queries)
        if not named:
            listed = {track.id: track.file_name for track in list_folder(audio).tracks}
    pieces = _files(results, query_audio)
    pieces |= {} if generated is None else _pieces(generated)
    for query in results.queries:
        kept, asked = pieces.get(query.id), query.numbers.get("latent")
        if kept is not None and kept.latent is not None and asked not in (None, kept.latent):
            raise InputError(
                f"{generated}: its {query.id!r} is not the one that was attributed; give the "
                "workdir whose queries were"
            )
    return Sources(audio, listed, pieces)


def of_track(sources: Sources, track: Track) -> Recording | Missing:
    """The recording of a track, or why there is none."""
    if sources.audio is None:
        return Missing("no folder of audio was given.")
    name = track.file_name or sources.listed.get(track.id)
    if name is None:
        return Missing(f"{METADATA} has no line whose file can be used for this track.")
    return _within(sources.audio, name, "of audio")


def of_query(sources: Sources, query: Query, own: Track | None) -> Recording | Missing:
    """The recording of a query: of a generated piece or of the track that it is a part of."""
    if own is not None:
        return of_track(sources, own)
    if query.id in sources.pieces:
        return sources.pieces[query.id].recording
    return Missing("it is no track of the corpus, and no folder of generated pieces has its sound.")


def _files(results: Results, folder: Path | None) -> dict[str, Piece]:
    """Queries whose metadata name a file that is no track's."""
    found = {}
    for query in results.queries:
        about = query.numbers.get("metadata") or {}
        name = about.get("file_name")
        if query.own is not None or name is None:
            continue
        recording: Recording | Missing = Missing("no folder of the queries' audio was given.")
        if folder is not None:
            recording = _within(folder, name, "of the queries' audio")
        found[query.id] = Piece(str(about.get("caption", "")), recording, {}, None)
    return found


def _within(folder: Path, name: str, what: str) -> Recording | Missing:
    if Path(name).is_absolute() or os.path.normpath(name).split(os.sep)[0] == os.pardir:
        return Missing(f"its file name, {name}, leads out of the folder {what}.")
    return Recording(folder / name, name)


def _pieces(folder: Path) -> dict[str, Piece]:
    path = folder / "summary.json"
    found = read_object(path, ("pieces", "made_of"), "a workdir of experiments.generate")
    made_by = {name: found["made_of"][name] for name in _MADE_BY if name in found["made_of"]}
    try:
        return {
            piece["id"]: Piece(
                piece["prompt"],
                Recording(folder / piece["audio"], piece["audio"]),
                made_by,
                piece.get("latent"),
            )
            for piece in found["pieces"]
        }
    except (TypeError, KeyError) as error:
        raise InputError(
            f"{path}: a piece lacks id, prompt or audio ({error!r}); generate it again"
        ) from error
