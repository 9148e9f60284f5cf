"""Tables of a large corpus: how long they take, and how much memory, by the number of queries.

    python -m benchmarks.tables --out=benchmarks/results/tables-cpu.json

Stores of the default draws are filled with noise, and read and made into tables as a run does it.
Each number of queries has a process of its own.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import app, flags

from tda_jax import heap

_OUT = flags.DEFINE_string("out", None, "JSON file for the result.")
_TRACKS = flags.DEFINE_integer("tracks", 100_000, "Tracks of the corpus.")
_QUERIES = flags.DEFINE_list("queries", ["1", "6", "12"], "Numbers of queries.")
_CHILD = flags.DEFINE_string("child", "", "Internal: a number of queries.")
_CHUNK = 1024


def main(argv: list[str]) -> None:
    """Measures, prints and writes the result; or does one part, in a process of its own."""
    del argv
    if _CHILD.value:
        heap.few_arenas()  # as every entry point does
        print(json.dumps(_made(int(_CHILD.value), _TRACKS.value)))
        return
    from benchmarks import hardware

    result: dict[str, Any] = {"machine": hardware.describe(), "tracks": _TRACKS.value}
    for queries in _QUERIES.value:
        command = [sys.executable, "-m", "benchmarks.tables", f"--child={queries}"]
        command += [f"--tracks={_TRACKS.value}"]
        found = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
        result[f"{queries} queries"] = found
        print(
            f"{queries} queries: {found['seconds'] / int(queries):.1f} s each, peak "
            f"{found['peak_bytes'] / 1e6:.0f} MB, {found['bytes_a_track']} bytes a track and query",
            flush=True,
        )
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {_OUT.value}")


def _made(queries: int, n: int) -> dict[str, Any]:
    import numpy as np

    from tda_jax import examples, store
    from tda_jax.attribution import passes, table
    from tda_jax.attribution.by_unlearning import Run
    from tda_jax.attribution.directions import Calibration
    from tda_jax.attribution.settings import Settings

    settings = Settings(n, "all")
    fields = passes.linear_fields(settings)
    ids = tuple(f"track {i:07d}" for i in range(n))
    latents = np.zeros((n, 1, 1, 1), np.float32)
    corpus = examples.corpus_of(ids, latents, members=np.arange(n) % 8 > 0)
    rng, sweeps = np.random.default_rng(0), {}
    with tempfile.TemporaryDirectory() as folder:
        for query in range(queries):
            kept = store.open_store(Path(folder) / str(query), ids, fields, {}, _CHUNK)
            for chunk in store.missing(kept):
                rows = len(store.rows(kept, chunk))
                noise = {f.name: rng.standard_normal((rows, *f.shape), np.float32) for f in fields}
                store.write_chunk(kept, chunk, noise)
            sweeps[f"query {query}"] = kept
        told = dict.fromkeys(sweeps, (Calibration(2.0, 0.3, 0.1, 0.09), 0.5))
        run = Run(sweeps, None, told, [], {}, {})
        start = time.perf_counter()
        made = sum(1 for _ in table.tables(run, corpus, settings))
        seconds = time.perf_counter() - start
    assert made == queries
    return {
        "seconds": seconds,
        "bytes_a_track": sum(4 * int(np.prod(f.shape)) for f in fields),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


if __name__ == "__main__":
    app.run(main)
