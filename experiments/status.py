"""How far each process is: a small file for people and schedulers, and events for TensorBoard."""

import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

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
_AT_ONCE = 16  # files that are read together


class Status:
    """Progress that is kept in a file, and passed on.

        FOLDER/00000.json   {"process", "state", "stage", "done", "total", "seconds", "updated"}
        FOLDER/00000/       events: STAGE/done and STAGE/a_second over time

    `done` of `total` is of this process's share of a stage, `seconds` since that stage began here,
    `updated` when the file was written, in seconds since 1970. `state` is "running" until the
    block that this is entered with ends, then "finished", or "failed" with its `reason`; of a
    process that was killed it stays "running", and `updated` grows old. Process 0 passes on the
    sums over all processes that are at its stage; the others pass nothing on. Within the block a
    thread does both from time to time, also while a process compiles, or waits for the others.

    Raises:
        InputError: the folder is not one that this process may write to.
    """

    def __init__(self, progress: Progress, folder: Place, among: Hosts) -> None:
        self._progress, self._folder, self._among = progress, folder, among
        self._stage, self._began, self._written, self._at_first = "", 0.0, 0.0, 0
        self._events: EventsWriter | None = None
        self._watched, self._told = True, {}
        self._remote = places.is_url(folder)
        self._often = _TO_A_BUCKET if self._remote else _OFTEN
        self._ours = ExitStack()  # the folder of events that are copied to a bucket
        self._passed = (0, 0)
        self._one, self._ended = threading.Lock(), threading.Event()
        self._beat = threading.Thread(target=self._beats, daemon=True)
        try:
            for path in self._left_over():
                places.delete(path)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error}); mend it") from error

    def __enter__(self) -> Self:
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        """Writes how the run ended, if it had begun."""
        self._ended.set()
        self._beat.join()
        with self._ours:
            if not self._told:
                return
            if error is None:
                self._keep({"state": "finished"})
                return
            with suppress(InputError):  # the error itself is what must be seen
                self._keep({"state": "failed", "reason": str(error) or type(error).__name__})

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Writes the file where a stage begins or ends, and now and then between."""
        now = time.monotonic()
        with self._one:
            if stage != self._stage:
                self._stage, self._began, self._at_first = stage, now, done
            elif now - self._written < self._often and done < total:
                return
            self._written = now
            self._write(stage, done, total, now - self._began)
            if self._among.first:
                self._pass_on()

    def _beats(self) -> None:
        """Says that this process lives, and how far all are, while it has nothing to tell."""
        while not self._ended.wait(self._often):
            now = time.monotonic()
            with self._one:
                if not self._told or now - self._written < self._often:
                    continue
                self._written = now
                self._told["seconds"] = round(now - self._began, 1)
                with suppress(InputError):  # it is told when there is progress
                    self._keep({"state": "running"})
                if self._among.first:
                    self._pass_on(changed=True)

    def _pass_on(self, changed: bool = False) -> None:
        """Passes on the sums over all processes, on wish only if they have changed."""
        sums = self._sums(self._stage, self._told["done"], self._told["total"])
        if not changed or sums != self._passed:
            self._progress(self._stage, *sums)
        self._passed = sums

    def _write(self, stage: str, done: int, total: int, seconds: float) -> None:
        self._told = {"stage": stage, "done": done, "total": total, "seconds": round(seconds, 1)}
        self._keep({"state": "running"})
        known = {"done": done}
        if seconds > 0:  # what was there before this run does not count in the rate
            known["a_second"] = (done - self._at_first) / seconds
        if self._watched:
            try:
                self._add_events(stage.replace(" ", "_"), known, done)
            except (OSError, InputError) as error:  # a picture of the work is no reason to end it
                self._watched = False
                warn(f"no more events for TensorBoard in {self._folder} ({error})")

    def _keep(self, state: Mapping[str, str]) -> None:
        content = {"process": self._among.index, **state, **self._told}
        content["updated"] = round(time.time(), 1)
        with whole_file(self._path(self._among.index)) as part:
            part.write_text(json.dumps(content) + "\n", encoding="utf-8")

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
            self._here = self._ours.enter_context(TemporaryDirectory()) if self._remote else own
            Path(self._here).mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(Path(self._here) / "events"))
        for name, value in known.items():
            summary = scalar(f"{stage}/{name}", value)
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._events.flush()
        if self._remote:
            for file in Path(self._here).iterdir():  # the one that was just written to
                places.write(own / file.name, file.read_bytes())

    def _sums(self, stage: str, done: int, total: int) -> tuple[int, int]:
        def of(index: int) -> tuple[int, int]:
            with suppress(OSError, ValueError):  # it is not there yet, or being replaced
                other = json.loads(places.read(self._path(index)))
                if other["stage"] == stage:
                    return other["done"], other["total"]
            return 0, 0

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            others = pool.map(of, range(1, self._among.count))
            known = [(done, total), *others]
        return sum(done for done, _ in known), sum(total for _, total in known)

    def _path(self, index: int) -> Place:
        return self._folder / f"{index:05d}.json"
