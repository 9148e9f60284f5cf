"""How far each process is: a small file for people and schedulers, and events for TensorBoard."""

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

from experiments.cards import warn
from experiments.progress import Progress
from tda_jax import places
from tda_jax.artifact import whole_file
from tda_jax.errors import InputError
from tda_jax.hosts import Hosts
from tda_jax.places import Place

_OFTEN, _TO_A_BUCKET = 5.0, 30.0  # seconds between two writings within a stage
_PATIENCE = 60.0  # seconds for the last word to a bucket


class _Told(NamedTuple):
    """What this process told last: a stage, when it began here, and what was done by then."""

    stage: str = ""
    done: int = 0
    total: int = 0
    began: float = 0.0
    at_first: int = 0


class Status:
    """Progress that is kept in a file, and passed on.

        FOLDER/00000.json   {"process", "state", "stage", "done", "total", "seconds", "updated"}
        FOLDER/00000/       events: STAGE/done and STAGE/a_second over time

    `done` of `total` is of this process's share of a stage, `seconds` since that stage began here,
    `updated` when the file was written, in seconds since 1970. `state` is "running" until the
    block that this is entered with ends, then "finished", or "failed" with its `reason`; of a
    process that was killed it stays "running", and `updated` grows old. Process 0 passes on the
    sums over all processes that are at its stage; the others pass nothing on. Within the block a
    thread does both from time to time, also while a process compiles, or waits for the others. To
    a bucket only that thread writes, after a first time, so that nothing waits for it.

    Raises:
        InputError: the folder is not one that this process may write to.
    """

    def __init__(self, progress: Progress, folder: Place, among: Hosts) -> None:
        self._progress, self._folder, self._among = progress, folder, among
        self._told, self._shown, self._written = _Told(), -math.inf, -math.inf
        self._others: list[Mapping[str, Any]] = []  # what the other processes have told
        self._passed: tuple[str, int, int] | None = None
        self._events: EventsWriter | None = None
        self._watched, self._warned = True, False
        self._remote = places.is_url(folder)
        self._ours = ExitStack()  # the folder of events that are copied to a bucket
        self._here = Path()  # of the events, on this machine
        self._one, self._ended = threading.Lock(), threading.Event()
        self._beat = threading.Thread(target=self._beats, daemon=True)
        for path in self._left_over():
            places.delete(path)

    def __enter__(self) -> Self:
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        """Writes how the run ended, if it had begun."""
        self._ended.set()
        with self._ours:
            if not self._remote:
                self._end(error)
                return
            # A bucket may not answer; nobody waits long for that.
            last = threading.Thread(target=self._trying(self._end), args=(error,), daemon=True)
            last.start()
            last.join(_PATIENCE)

    def _end(self, error: BaseException | None) -> None:
        self._beat.join()
        told, now = self._told, time.monotonic()
        if not told.stage:
            return
        if error is None:
            self._keep(told, now, {"state": "finished"})
            return
        with suppress(InputError):  # the error itself is what must be seen
            reason = str(error) or type(error).__name__
            self._keep(told, now, {"state": "failed", "reason": reason})

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Writes the file where a stage begins or ends, and now and then between."""
        now = time.monotonic()
        with self._one:
            old = self._told
            begins = stage != old.stage
            since = (now, done) if begins else (old.began, old.at_first)
            self._told = _Told(stage, done, total, *since)
            if not begins and now - self._shown < _OFTEN and done < total:
                return
            self._shown = now
            if not (self._remote and old.stage):
                self._write(self._told, now)
            self._pass_on()

    def _beats(self) -> None:
        """Says that this process lives, and how far all are, while it has nothing to tell."""
        often, beat = _TO_A_BUCKET if self._remote else _OFTEN, self._trying(self._tell)
        while not self._ended.wait(often):
            beat(time.monotonic(), often)

    def _tell(self, now: float, often: float) -> None:
        with self._one:
            told, due = self._told, now - self._written >= often
            if told.stage and due and not self._remote:
                self._write(told, now)
        if told.stage and self._remote:  # without the lock, as it may take long
            self._write(told, now)
        with self._one:
            self._pass_on(changed=True)

    def _trying(self, work: Callable[..., None]) -> Callable[..., None]:
        """Work of a thread: what goes wrong there is told once, and ends nothing."""

        def tried(*given: Any) -> None:
            try:
                work(*given)
            except Exception as error:  # of a bucket, of a terminal that is gone, of whatever
                if not self._warned:
                    self._warned = True
                    with suppress(OSError, ValueError):  # where nobody can be told any more
                        warn(f"the status in {self._folder} may grow old ({error})")

        return tried

    def _pass_on(self, changed: bool = False) -> None:
        """Passes on the sums over all processes, on wish only if they have changed."""
        told = self._told
        if not self._among.first or not told.stage:
            return
        known = [other for other in self._others if other["stage"] == told.stage]
        done, total = (
            getattr(told, name) + sum(other[name] for other in known) for name in ("done", "total")
        )
        if not changed or (told.stage, done, total) != self._passed:
            self._progress(told.stage, done, total)
        self._passed = told.stage, done, total

    def _write(self, told: _Told, now: float) -> None:
        """Writes the file and the events, and reads what the others have written."""
        self._written = now
        self._keep(told, now, {"state": "running"})
        known, seconds = {"done": told.done}, now - told.began
        if seconds > 0:  # what was there before this run does not count in the rate
            known["a_second"] = (told.done - told.at_first) / seconds
        if self._watched:
            try:
                self._add_events(told.stage.replace(" ", "_"), known, told.done)
            except (OSError, InputError) as error:  # a picture of the work is no reason to end it
                self._watched = False
                warn(f"no more events for TensorBoard in {self._folder} ({error})")
        if self._among.first:
            self._others = [x for x in map(self._read, range(1, self._among.count)) if x]

    def _keep(self, told: _Told, now: float, state: Mapping[str, str]) -> None:
        content = {"process": self._among.index, **state}
        content |= {name: getattr(told, name) for name in ("stage", "done", "total")}
        content["seconds"] = round(now - told.began, 1)
        content["updated"] = round(time.time(), 1)
        with whole_file(self._path(self._among.index)) as part:
            part.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def _read(self, index: int) -> Mapping[str, Any] | None:
        with suppress(OSError, ValueError):  # it is not there yet, or being replaced
            return json.loads(places.read(self._path(index)))
        return None

    def _left_over(self) -> list[Place]:
        """Files of an earlier run: this process's own, and of processes that are none any more."""
        own = [self._path(self._among.index)]
        if not self._among.first:
            return own
        others = places.listed(self._folder, ".json")
        return own + [p for p in others if p.stem.isdigit() and int(p.stem) >= self._among.count]

    def _add_events(self, stage: str, known: Mapping[str, float], step: int) -> None:
        own = self._folder / f"{self._among.index:05d}"
        if self._events is None:
            copied = self._ours.enter_context(TemporaryDirectory()) if self._remote else own
            self._here = Path(copied)
            self._here.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(self._here / "events"))
        for name, value in known.items():
            summary = scalar(f"{stage}/{name}", value)
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._events.flush()
        if self._remote:
            for file in self._here.iterdir():  # the one that was just written to
                places.write(own / file.name, file.read_bytes())

    def _path(self, index: int) -> Place:
        return self._folder / f"{index:05d}.json"
