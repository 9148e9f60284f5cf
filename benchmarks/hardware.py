"""What a measurement was made on, and from which commit: without it a figure means nothing."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

_PACKAGES = ("jax", "jaxlib", "flax", "torch", "diffusers", "numpy")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _gpu() -> str | None:
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        return subprocess.check_output(query, text=True).strip() or None
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe() -> dict:
    """Processor, cores, load, versions and commit; `changed` if files differ from the commit."""
    git = lambda *a: subprocess.check_output(["git", *a], text=True).strip()  # noqa: E731
    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        commit = git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (FileNotFoundError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": _gpu(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _PACKAGES},
        "commit": commit,
    }
