"""A process that times what it is told to, one request a line: the rivals never run at once.

Requests and answers are JSON lines on standard input and output. Each library has its own process,
so that neither's threads or allocator disturb the other's.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(setups: dict[str, Callable[..., Callable[[], Any]]]) -> None:
    """Answers requests until input ends.

    {"setup": kind, "name": name, ...} makes a case, runs it once and answers with the seconds that
    its first call took; {"time": name} answers with the seconds of one call.
    """
    cases: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        start = time.perf_counter()
        if "setup" in request:
            kind, name = request.pop("setup"), request.pop("name")
            cases[name] = setups[kind](**request)
            start = time.perf_counter()
            cases[name]()
        else:
            cases[request["time"]]()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


class Worker:
    """The other end of `serve`: `python -m module` in a process of its own."""

    def __init__(self, module: str) -> None:
        """Starts the process."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> float:
        """Sends a request; the seconds that it took."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith('{"seconds"'):
                return json.loads(line)["seconds"]
        raise RuntimeError(f"the worker ended with status {self._process.wait()}")

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()
