"""Several processes that share one job: which of them this is, its share, and where all meet.

The only module that names `jax.distributed`. Processes share nothing but the folder of their
results, and what process 0 tells all of it (`agreed`): each computes a range of what there is to
compute, and no collective runs between them. A value depends neither on the process that computes
it nor on their number, so long as devices and batches are the same; a job that was begun by many
may be finished by few.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
from orbax.checkpoint import multihost

from tda_jax import artifact, places
from tda_jax.errors import InputError
from tda_jax.places import Place

_HEARTBEAT = 60  # seconds without a sign of life, after which the others of a process end
_SEEN_WITHIN = 60.0  # seconds, as network file systems remember for some that a file was not there
_PATIENCE = 30 * 24 * 3600  # seconds at a meeting point: as long as a job may take

Result = TypeVar("Result")


class Hosts(NamedTuple):
    """This process among those of a job.

    Attributes:
        index: 0 .. count-1. Process 0 creates what all share, and writes tables.
        count: of processes.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is process 0."""
        return self.index == 0


ALONE = Hosts()


def join(coordinator: str = "", count: int = 0, index: int = -1) -> Hosts:
    """Joins the other processes of a job, before any other use of JAX; waits until all are there.

    Args:
        coordinator: "host:port" of process 0; "auto" for what the cluster says (a TPU pod slice,
            SLURM, Open MPI, Kubernetes), "" for a process alone.
        count: of processes; 0 where the cluster says it.
        index: of this process; -1 where the cluster says it.

    Raises:
        InputError: the numbers do not go together, or the others are not to be found.
    """
    if not coordinator:
        if count > 1 or index > 0:
            raise InputError(
                f"{count} processes, this one {index}, but no coordinator; give the host and port "
                "of process 0, or auto on a cluster that JAX knows"
            )
        return ALONE
    named = coordinator != "auto"
    if named and not 0 <= index < count:
        raise InputError(
            f"coordinator {coordinator!r}, {count} processes, this one {index}; give how many "
            "there are, and the index of each from 0"
        )
    # It would catch SIGTERM, by which schedulers preempt, and go on until SIGKILL.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator if named else None,
            count or None,
            index if index >= 0 else None,
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_HEARTBEAT,  # for the others, once this one has ended
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"coordinator {coordinator!r}: the processes cannot join ({error}). Start all of them, "
            "give a port that is free on the host of process 0, or, with auto, run on a cluster "
            "that JAX knows"
        ) from error
    return Hosts(jax.process_index(), jax.process_count())


def share(hosts: Hosts, total: int) -> range:
    """The range of 0 .. total-1 that is this process's; sizes of ranges differ by one at most."""
    return range(total * hosts.index // hosts.count, total * (hosts.index + 1) // hosts.count)


def meet(hosts: Hosts, name: str, patience: float = _PATIENCE) -> None:
    """Waits until every process has come here.

    Args:
        hosts: all that meet.
        name: of the meeting point; the same one may come again.
        patience: seconds.

    Raises:
        InputError: another process has ended without coming, a minute or so later; or not all came
            in time.
    """
    if hosts.count == 1:
        return
    with _together(hosts, name):
        multihost.get_barrier_sync_fn()(key=name, timeout_ms=round(patience * 1000))


@contextmanager
def _together(hosts: Hosts, name: str) -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"process {hosts.index} of {hosts.count}, at {name!r}: another one has ended, or was "
            f"started with another card ({str(error).splitlines()[0]}). Start all of them again "
            "with one card; what is done is kept"
        ) from error


def meet_in(hosts: Hosts, folder: Place, name: str, patience: float = _PATIENCE) -> None:
    """Waits as `meet` does, and sees that the folder is one and the same for all.

    Args:
        hosts: all that meet.
        folder: of the results; process 0 makes it where it is not there.
        name: of the meeting point.
        patience: seconds.

    Raises:
        InputError: as `meet`; or this process does not see what process 0 wrote in the folder.
    """
    if hosts.count == 1:
        return
    mark = folder / "seen_by_all.part"
    if hosts.first:
        with artifact.whole_file(mark) as part:
            part.touch()
    meet(hosts, name, patience)
    until = time.monotonic() + _SEEN_WITHIN
    while not places.exists(mark):
        if time.monotonic() > until:
            raise InputError(
                f"{folder}: process {hosts.index} of {hosts.count} does not see there what process "
                "0 wrote. All processes need one folder: give a path on a file system that they "
                "share"
            )
        time.sleep(0.5)
    meet(hosts, f"{name} seen")
    if hosts.first:
        places.delete(mark)


def agreed(hosts: Hosts, name: str, find: Callable[[], Any], patience: float = _PATIENCE) -> Any:
    """What process 0 finds, told to all: what a folder holds need not look the same to each.

    Args:
        hosts: all that must know it.
        name: of the matter; the same one may come again.
        find: called by process 0 alone; gives anything that JSON keeps.
        patience: seconds.

    Raises:
        InputError: as `meet`.
    """
    if hosts.count == 1:
        return find()
    client = multihost.get_jax_distributed_client()
    key = f"tda_jax/{name}"
    told = json.dumps(find()) if hosts.first else ""
    with _together(hosts, name):
        if hosts.first:
            client.key_value_set(key, told)
        found = client.blocking_key_value_get(key, round(patience * 1000))
    meet(hosts, f"{name} told", patience)
    if hosts.first:
        with _together(hosts, name):
            client.key_value_delete(key)
    meet(hosts, f"{name} known", patience)  # until then nobody may ask again
    return json.loads(found)


def leave(status: int) -> NoReturn:
    """Ends this process at once where there are others, which then end, too; else as any exit.

    A usual exit would wait for the others, who wait for this one.
    """
    if jax.distributed.is_initialized():
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(status)
    raise SystemExit(status)


def first_then_all(hosts: Hosts, name: str, make: Callable[[], Result]) -> Result:
    """Lets process 0 make something that the others then find there."""
    if hosts.first:
        made = make()
    meet(hosts, name)
    return made if hosts.first else make()
