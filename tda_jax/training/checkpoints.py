"""Checkpoints of a training run, by Orbax: a killed run goes on from the last whole one."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from tda_jax import fingerprint

_STATE, _SOURCE = "state", "source"


class Checkpoints(NamedTuple):
    """Where a run keeps what it has done.

    Attributes:
        folder: of the checkpoints.
        source: what the run is made from: a run of anything else is refused.
        every: updates from one checkpoint to the next.
    """

    folder: Path
    source: Mapping[str, Any]
    every: int


class Kept(NamedTuple):
    """An open folder of checkpoints; without a manager nothing is kept."""

    checkpoints: Checkpoints | None
    manager: ocp.CheckpointManager | None

    def last(self, start: Any) -> tuple[int, Any]:
        """Updates done and the state after them; (0, start) where nothing is kept.

        Raises:
            InputError: the checkpoint is of another run.
        """
        if self.checkpoints is None or self.manager is None:
            return 0, start
        step = self.manager.latest_step()
        if step is None:
            return 0, start
        folder, made_of = self.checkpoints.folder, self.checkpoints.source
        there = self.manager.restore(step, args=_composite(ocp.args.JsonRestore(), None))[_SOURCE]
        remedy = f"Train in another folder, or delete {folder} to train again"
        fingerprint.refuse_other(str(folder), there, fingerprint.plain(made_of, "source"), remedy)
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, start)
        found = self.manager.restore(step, args=_composite(None, ocp.args.StandardRestore(shapes)))
        return step, found[_STATE]

    def due(self, done: int, steps: int) -> bool:
        """Whether a checkpoint is to be kept after so many updates."""
        return self.checkpoints is not None and (
            done % self.checkpoints.every == 0 or done == steps
        )

    def save(self, done: int, steps: int, state: Any) -> None:
        """Keeps the state, if a checkpoint is due."""
        if self.checkpoints is not None and self.manager is not None and self.due(done, steps):
            source = ocp.args.JsonSave(fingerprint.plain(self.checkpoints.source, "source"))
            self.manager.save(done, args=_composite(source, ocp.args.StandardSave(state)))


@contextlib.contextmanager
def opened(checkpoints: Checkpoints | None) -> Iterator[Kept]:
    """Opens the folder; at the end waits until all is on disk."""
    if checkpoints is None:
        yield Kept(None, None)
        return
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    with ocp.CheckpointManager(checkpoints.folder.absolute(), options=options) as manager:
        yield Kept(checkpoints, manager)


def _composite(source: Any, state: Any) -> Any:
    items = {_SOURCE: source, _STATE: state}
    return ocp.args.Composite(**{name: item for name, item in items.items() if item is not None})
