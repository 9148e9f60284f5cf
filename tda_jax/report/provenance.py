"""What made a report: the settings, fingerprints, versions and times of a run, as lines of text."""

import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import soundfile

from tda_jax.report.words import NONE, duration

_DRAWN_BY = ("jinja2", "librosa", "pillow", "pyarrow", "soundfile", "soxr")


class Group(NamedTuple):
    """Lines under one heading: a name and a value each."""

    title: str
    lines: tuple[tuple[str, str], ...]


def provenance(summary: Mapping[str, Any]) -> tuple[Group, ...]:
    """What a summary says of how its run was made, and by what the report is drawn.

    Args:
        summary: the content of `summary.json`; an entry that is not there is left out.
    """
    prints = dict(summary.get("fingerprints", {}))
    versions = prints.pop("versions", {})
    drawn = {name: metadata.version(name) for name in _DRAWN_BY}
    drawn["libsndfile"] = soundfile.__libsndfile_version__
    seconds = summary.get("seconds", {})
    stages = {name: _stage(stage) for name, stage in summary.get("stages", {}).items()}
    groups = {
        "Settings of the run": summary.get("settings", {}),
        "Machine": summary.get("compute", {}),
        "Fingerprints (sha256) of what it read": prints,
        "Versions of the libraries that computed": versions,
        "Versions of the libraries that drew this report": drawn,
        "Work that was predicted": stages,
        "Fisher information": summary.get("fisher") or {},
        "How far members and decoys differ": summary.get("decoy_match", {}),
        "Time by stage": {name: duration(value) for name, value in seconds.items()},
    }
    found = (Group(title, tuple(_lines(content))) for title, content in groups.items())
    return tuple(group for group in found if group.lines)


def _stage(stage: Mapping[str, Any]) -> str:
    return ", ".join(f"{value:,} {name}" for name, value in stage.items() if value is not None)


def _lines(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{before}{name}: ")
        else:
            yield f"{before}{name}".replace("_", " "), _text(value)


def _text(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, str):
        return value or "(empty)"
    return json.dumps(value, ensure_ascii=False)
