"""What of a machine this process may use: a scheduler often gives it less than there is."""

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cores() -> int:
    """How many processor cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory(own: Path = _OWN, root: Path = _CGROUPS) -> int:
    """Bytes of memory that this process may take: the machine's, or the least limit of its groups.

    Args:
        own: which control group the process is in, as Linux says it.
        root: of the control groups (version 2, which SLURM, Docker and Kubernetes set).
    """
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([whole, *_limits(own, root)])


def _limits(own: Path, root: Path) -> list[int]:
    """The limits of the process's group and of those around it; none where Linux says nothing."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    group = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if group is None:
        return []
    here, found = root / group, []
    for folder in (here, *here.parents):
        if not folder.is_relative_to(root):
            break
        try:
            said = (folder / "memory.max").read_text().strip()
        except OSError:  # the root has no limit; a container may not see the groups around it
            continue
        if said.isdigit():  # or "max"
            found.append(int(said))
    return found
