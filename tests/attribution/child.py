"""A run of attribution in a process of its own: on forced host devices, or until it is killed.

python -m tests.attribution.child WORKDIR '{"model": "tiny", "method": "linearised", ...}'

With "hosts": [port, count, index] it is one of several that share the run.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np

from tda_jax import devices, examples, hosts, places, store
from tda_jax.attribution import by_unlearning, information
from tda_jax.attribution.settings import Compute, Settings
from tests.attribution import small, tiny

QUERIES = (1, 4)


def attribute(workdir, model="tiny", method="linearised", tracks=9, **given):
    """Runs it; the arrays of every query's sweep by (query, field), and the learning rates."""
    among = joined(*given["hosts"]) if given.get("hosts") else hosts.ALONE
    side, seed = (tiny, small)[model == "small"], 0
    made = tiny.model(seed, np.float32) if side is tiny else small.model(seed)
    corpus = tiny.corpus(tracks, dtype=np.float32) if side is tiny else small.corpus(tracks)
    queries = examples.take(corpus, QUERIES)
    if given.get("order"):  # the corpus as a user might list it, in any order
        rows = np.random.default_rng(given["order"]).permutation(tracks)
        shuffled = examples.take(corpus, rows)
        condition = shuffled.examples.condition
        corpus = examples.corpus_of(
            shuffled.ids, shuffled.examples.latent, condition, shuffled.examples.mask
        )
    settings = Settings(
        100,
        "attention" if side is tiny else "transformer",
        method,
        query_draws=32,
        fisher_draws=3,
        strata=10,
        rise=0.2,
    )
    batch = given.get("batch", 8)
    compute = Compute(devices.local_devices(), batch, batch, 2, given.get("chunk", 4), among)
    kept_in = places.place(given.get("place", workdir))  # results may lie in a bucket
    run = by_unlearning.run(
        made, corpus, queries, settings, compute, kept_in, _killer(given.get("kill"))
    )
    out = {"rates": np.array([run.directions[q][1] for q in queries.ids])}
    for query, kept in run.sweeps.items():
        out |= {f"{query}|{name}": x for name, x in store.read(kept).items()}
    if run.before is not None:
        out["before"] = store.read(run.before)["loss"]
    return out if among.first else None


def joined(port, count, index):
    return hosts.join(f"127.0.0.1:{port}", count, index)


def _killer(at):
    """A progress callback that kills this process, without a word, at a stage and count."""

    def progress(stage, done, total):
        if at and stage == at[0] and done >= at[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


def _log_chunks(path):
    """Adds a line to a file for each chunk whose values are there to be written."""
    write = store.write_chunk

    def logged(kept, chunk, values):
        with suppress(OSError), path.open("a") as file:  # a disk that refuses is the run's to tell
            file.write(f"{Path(kept.path) / store._mark_key(chunk)}\n")  # whole, from any process
        write(kept, chunk, values)

    store.write_chunk = logged


if __name__ == "__main__":
    cache = Path(__file__).parent.parent.parent / ".jax_cache"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    information._LEAST = 4  # rows in a block, so that every process has one
    information._WAIT = 0.0  # each is kept
    _log_chunks(Path(sys.argv[1]) / "computed.txt")
    arrays = attribute(sys.argv[1], **json.loads(sys.argv[2]))
    if arrays is not None:
        np.savez(Path(sys.argv[1]) / "out.npz", devices=len(jax.local_devices()), **arrays)
