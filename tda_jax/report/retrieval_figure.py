"""What scores find beside plain likeness and chance, with intervals. Legible in grey."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tda_jax.artifact import whole_file
from tda_jax.evaluation.retrieval import CHANCE, Row

_PANELS = {
    "relatives_auc": "other versions of the work\nagainst other works",
    "caption_mates_auc": "tracks under its caption\nagainst other captions",
    "member_auc": "trained versions of the work\nagainst held-out ones as like it",
}


def retrieval_figure(path: Path, rows: Sequence[Row], note: str) -> None:
    """Draws areas under the curve of each method, a panel for each figure.

    Args:
        path: the PNG, written in place of what was there.
        rows: from `retrieval.rows`.
        note: what the intervals are over.
    """
    methods = [row for row in rows if row.method != CHANCE]
    places = np.arange(len(methods))
    figure = Figure(figsize=(9.0, 1.7 + 0.36 * len(methods)), layout="constrained")
    for axes, (name, title) in zip(
        figure.subplots(1, len(_PANELS), sharey=True), _PANELS.items(), strict=True
    ):
        axes.axvline(0.5, color="0.5", linestyle=":", linewidth=1)
        for place, row in zip(places, methods, strict=True):
            found = row.figures[name]
            if found is None:
                continue
            own = place == 0
            if np.isfinite(found.low):
                axes.hlines(place, found.low, found.high, color="0.0", linewidth=2 if own else 1)
            face = "0.0" if own else "1.0"
            axes.plot(found.mean, place, "o", color="0.0", markerfacecolor=face, markersize=6)
        axes.set_title(title, fontsize=9)
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        axes.set_ylim(len(methods) - 0.4, -0.6)
        axes.set_yticks(places, [row.method for row in methods])
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"area under the curve (0.5 by chance). {note}", fontsize=8)
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=150)
