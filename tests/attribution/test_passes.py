"""Which process fills which chunk of a store, whatever an earlier run had left."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tda_jax import examples, hosts, store
from tda_jax.attribution import passes

N, CHUNK = 23, 2
IDS = tuple(f"track {i:02d}" for i in range(N))
CORPUS = examples.corpus_of(IDS, np.arange(N, dtype=np.float32).reshape(N, 1, 1, 1))
FIELD = store.Field("loss", (), "float32")


def write(kept, chunk):
    here = store.rows(kept, chunk)
    store.write_chunk(kept, chunk, {"loss": np.arange(here.start, here.stop, dtype=np.float32)})


@pytest.fixture
def stores(tmp_path):
    """Of two queries: both lack chunks 5, 6 and 8 to 11, the second one 2, too."""
    made = [store.open_store(tmp_path / q, IDS, [FIELD], {"of": q}, CHUNK) for q in "ab"]
    for kept, done in zip(made, ((0, 1, 2, 3, 4, 7), (0, 1, 3, 4, 7)), strict=True):
        for chunk in done:
            write(kept, chunk)
    return made


def together(stores, count, monkeypatch):
    """Fills them by so many threads, each as a process; the chunks of each, and what it told."""
    barrier, told_by_first = threading.Barrier(count), []

    def agreed(among, name, find):
        if among.first:
            told_by_first.append(json.loads(json.dumps(find())))
        barrier.wait(60)
        return told_by_first[-1]

    monkeypatch.setattr(hosts, "agreed", agreed)

    def process(index):
        computed, told = [], []

        def compute(some, ids, which):
            computed.append((IDS.index(ids[0]) // CHUNK, tuple(which)))
            return [{"loss": np.asarray(some.latent)[:, 0, 0, 0]} for _ in which]

        among = hosts.Hosts(index, count)
        passes._fill_all(stores, CORPUS, compute, among, "sweep", lambda *x: told.append(x))
        return computed, told

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(process, range(count)))
    for kept in stores:
        np.testing.assert_array_equal(store.read(kept)["loss"], np.arange(N))
    return [computed for computed, _ in found], [told for _, told in found]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_what_is_missing_is_shared_evenly_and_computed_once(stores, count, monkeypatch):
    each, told = together(stores, count, monkeypatch)
    wanted = [(2, (1,))] + [(chunk, (0, 1)) for chunk in (5, 6, 8, 9, 10, 11)]
    assert [chunk for some in each for chunk in some] == wanted
    assert max(map(len, each)) - min(map(len, each)) <= 1
    begun, ended = (sum(one[at][1] for one in told) for at in (0, -1))
    assert (begun, ended) == (N - 13, N)
    assert sum(one[-1][2] for one in told) == N


def test_where_nothing_is_missing_nothing_is_told(stores, monkeypatch):
    together(stores, 1, monkeypatch)
    assert together(stores, 2, monkeypatch) == ([[], []], [[], []])


@pytest.mark.parametrize(
    ("chunks", "ranges"),
    [([], []), ([3], [(3, 4)]), ([0, 1, 2], [(0, 3)]), ([0, 2, 3, 7, 8], [(0, 1), (2, 4), (7, 9)])],
)
def test_numbers_as_ranges(chunks, ranges):
    assert passes._ranges(chunks) == ranges
