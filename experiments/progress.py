"""Progress of a run: a bar for each stage, and how long each took."""

import json
import time
from collections.abc import Callable
from types import TracebackType

from tqdm import tqdm

from tda_jax import places
from tda_jax.places import Place

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total), called as work goes on."""


_UNITS = {
    "training": "update",
    "retraining": "update",
    "scores by": "query",
    "losses of queries": "model",
    "predicting memory": "run",
    "queries unlearned": "query",
    "sampling": "piece",
    "decoding": "piece",
    "encoding": "file",
    "composing and playing": "file",
    "writing the dataset": "dataset",
    "tables and figures": "query",
    "report": "query",
}
_UNIT = "track"  # of every other stage


class Bars:
    """Shows a bar for each stage on stderr, with its rate and the time left."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Moves the bar of a stage; another stage than before gets a new one.

        A bar that is full is left as it is, so that what is printed next has a line of its own.
        """
        if self._bar is None or self._bar.desc.removesuffix(": ") != stage:
            self.close()
            # What was there before this run started counts as done, but not in the rate.
            unit = f" {_unit(stage)}"
            self._bar = tqdm(desc=stage, total=total, initial=done, unit=unit, dynamic_ncols=True)
        self._bar.total = total  # of several processes it grows as they come to the stage
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Leaves the last bar as it is."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _unit(stage: str) -> str:
    """What a stage counts: "training the VAE" counts what "training" does."""
    return next((unit for name, unit in _UNITS.items() if stage.startswith(name)), _UNIT)


class Clock:
    """Passes progress on, and sums the seconds of each stage until the next one speaks."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._stage = progress, "preparation"
        self._since = time.monotonic()
        self._seconds: dict[str, float] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """The time since the last call belongs to the stage that spoke last."""
        now = time.monotonic()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now
        self._progress(stage, done, total)

    def seconds(self, summary: Place | None = None) -> dict[str, float]:
        """The seconds of each stage so far.

        Args:
            summary: a JSON file of earlier runs in the same folder; its `seconds` are added, so
                that a run which found all there does not say that it took no time.
        """
        running = self._seconds.get(self._stage, 0.0) + time.monotonic() - self._since
        return added({**self._seconds, self._stage: running}, summary)


def added(seconds: dict[str, float], summary: Place | None) -> dict[str, float]:
    """Seconds by stage, with those that a summary of earlier runs holds."""
    if summary is None or not places.exists(summary):
        return seconds
    before = json.loads(places.read(summary)).get("seconds", {})
    names = dict.fromkeys((*before, *seconds))
    return {name: before.get(name, 0.0) + seconds.get(name, 0.0) for name in names}
