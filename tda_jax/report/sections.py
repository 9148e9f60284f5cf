"""The parts of a report, put together from what was read: a section for each query."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tda_jax.report import charts, contents, sources
from tda_jax.report.charts import Axis, Concentration, Distribution, Whisker
from tda_jax.report.contents import Query, Track
from tda_jax.report.players import Missing, Player, Recording
from tda_jax.report.rivals import Rivals, rivals
from tda_jax.report.sources import Sources

Play = Callable[[Recording | Missing, float], Player | Missing]
"""play(recording, start in seconds) -> its player."""


class Shown(NamedTuple):
    """A track of a list.

    Attributes:
        track: its row of the table.
        whisker: its score and error on the axis of the list.
        player: of its recording; None in a report without sound.
    """

    track: Track
    whisker: Whisker
    player: Player | Missing | None


class Section(NamedTuple):
    """What a report says of one query.

    Attributes:
        id: of the query.
        prompt: of a query that is no track, else None.
        made_by: settings of the sampler that made it, by name.
        own: the track that it is or is a part of, or None.
        player: of the query; None in a report without sound.
        numbers: what `summary.json` says of it.
        tracks: the highest scores.
        axis: of their scores; None where no track has a score.
        distribution: of all scores, likewise.
        concentration: likewise; None too where no member has a positive score.
        rivals: methods beside each other.
        directed: whether errors hold the noise in the query's direction.
    """

    id: str
    prompt: str | None
    made_by: Mapping[str, Any]
    own: Track | None
    player: Player | Missing | None
    numbers: Mapping[str, Any]
    tracks: tuple[Shown, ...]
    axis: Axis | None
    distribution: Distribution | None
    concentration: Concentration | None
    rivals: Rivals
    directed: bool

    @property
    def best(self) -> Shown | None:
        """The highest score but that of the query itself, if it is shown."""
        return next((shown for shown in self.tracks if not shown.track.own), None)

    @property
    def players(self) -> list[Player]:
        """All that can be played."""
        every = [self.player, *(shown.player for shown in self.tracks)]
        return [player for player in every if isinstance(player, Player)]


def section(query: Query, found: Sources, top: int, play: Play | None) -> Section:
    """The section of a query.

    Args:
        query: from `contents.read`.
        found: where recordings lie.
        top: how many tracks are shown.
        play: makes a player; None for a report without sound.
    """
    tracks = [contents.track(query, row) for row in contents.top_rows(query, top)]
    axis = charts.axis_of(tracks, query) if tracks else None
    own = None if query.own is None else contents.track(query, query.own)
    piece = found.pieces.get(query.id) if own is None else None
    start = 0.0 if own is None else own.start
    errors = query.column("direction_error")
    return Section(
        id=query.id,
        prompt=None if piece is None else piece.prompt,
        made_by={} if piece is None else piece.made_by,
        own=own,
        player=play and play(sources.of_query(found, query, own), start),
        numbers=query.numbers,
        tracks=tuple(
            Shown(
                track,
                charts.whisker(track, axis),
                play and play(sources.of_track(found, track), track.start),
            )
            for track in tracks
        ),
        axis=axis,
        distribution=charts.distribution(query),
        concentration=charts.concentration(query),
        rivals=rivals(query),
        directed=any(map(math.isfinite, errors)),
    )
