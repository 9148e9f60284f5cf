"""The HTML page of a report: one file that opens from a disk, and asks no network for anything.

Everything that a user gave is escaped by the templates. A Content-Security-Policy forbids all but
the page's own style, its own script and files beside it.
"""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tda_jax.report import pictures, words
from tda_jax.report.agreement import Truth, strips
from tda_jax.report.charts import Tick
from tda_jax.report.evidence import MEASURES, Evaluation, Preflight
from tda_jax.report.players import Missing
from tda_jax.report.provenance import provenance
from tda_jax.report.scale import round_ticks
from tda_jax.report.sections import Section, Shown

_TEMPLATES = Path(__file__).parent / "templates"
_REASONS = 20  # tracks without a score that are named; the rest are counted


class Page(NamedTuple):
    """What a page shows.

    Attributes:
        summary: of the run.
        sections: one for each query.
        silent: why the report has no sound; None where it has.
        evaluation: methods beside each other, or None.
        preflight: checks of the model, or None.
        truth: scores held against retraining, or None.
    """

    summary: Mapping[str, Any]
    sections: tuple[Section, ...]
    silent: str | None
    evaluation: Evaluation | None
    preflight: Preflight | None
    truth: Truth | None


def render(page: Page) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(words, name)
        for name in ("number", "short", "fixed", "percent", "count", "clock")
    }
    environment.filters |= {"seconds": _seconds, "place": _place, "near": _near}
    environment.tests["missing"] = lambda player: isinstance(player, Missing)
    style, script = (_own(name) for name in ("style.css", "script.js"))
    return environment.get_template("page.html").render(
        page=page,
        style=style,
        script=script,
        policy=_policy(style, script),
        groups=provenance(page.summary),
        measures=MEASURES,
        strips=page.truth and strips(page.truth),
        shown_reasons=_REASONS,
        name_of=name_of,
        title_of=title_of,
        loudness=(pictures.QUIETEST, pictures.LOUDEST),
    )


def title_of(section: Section) -> str:
    """What a query is called: its prompt, its track's title, or its id."""
    if section.prompt is not None:
        return f"“{section.prompt}”"
    return section.id if section.own is None else section.own.title or section.id


def name_of(shown: Shown) -> str:
    """What a track is called where only text can stand."""
    track = shown.track
    by = "" if track.artist is None else f" by {track.artist}"
    return f"{track.title or track.id}{by}"


def _own(name: str) -> Markup:
    """A file of this package, which needs no escaping."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy: files beside the page, and this style and script, no others."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    return (
        "default-src 'none'; img-src 'self' file:; media-src 'self' file:; "
        f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _seconds(length: float) -> list[Tick]:
    """The marks of a time axis of so many seconds, in per cent of its width."""
    return [Tick(_place(x / length), f"{x:g} s") for x in round_ticks(0.0, length)]


def _place(share: float) -> float:
    """A share of 1 in per cent, as charts take it."""
    return round(100 * share, 2)


def _near(at: float) -> str:
    """On which side of its mark a word begins, so that it stays on the chart."""
    return "start" if at < 5 else "end" if at > 95 else "middle"
