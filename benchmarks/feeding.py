"""A corpus that is larger than memory: what writing, reading and feeding it cost.

    python -m benchmarks.feeding --out=benchmarks/results/feeding-cpu.json

A sweep of the demo's network with 10 draws a track takes its corpus from a dataset and from arrays
that lie on the device, in turn. Then latents and embeddings of AudioLDM's shapes are written as a
dataset of 1,000 tracks, and of `--tracks`, each by a process of its own, and read once by another,
which checks them and passes them through a sweep of a network that does next to nothing: the most
that feeding can do, and the memory that it takes. The file is written after each part.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import app, flags

from tda_jax import heap

_OUT = flags.DEFINE_string("out", None, "JSON file for the result.")
_TRACKS = flags.DEFINE_integer("tracks", 100_000, "Tracks of the larger corpus.")
_FED = flags.DEFINE_integer("fed", 24, "Tracks of the sweep that does work; 0 for none.")
_CHILD = flags.DEFINE_string("child", "", "Internal: write:FOLDER:N, read:FOLDER or feed:FOLDER.")
_LATENT, _EMBEDDING, _MELS = (256, 16, 8), 512, 64
_FEW, _CHUNK = 1000, 64
_FED_CHUNK = 8  # several chunks of few tracks, so that there is a next one to read
_REPEATS = 3


def main(argv: list[str]) -> None:
    """Measures, prints and writes the result; or does one part, in a process of its own."""
    del argv
    if _CHILD.value:
        what, folder, *more = _CHILD.value.split(":")
        work = {"write": _write, "read": _read, "feed": _feed}[what]
        heap.few_arenas()  # as every entry point does
        found = work(Path(folder), *map(int, more))
        found["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(found))
        return
    from benchmarks import hardware

    result: dict[str, Any] = {"machine": hardware.describe(), "latent": _LATENT}
    with tempfile.TemporaryDirectory() as scratch:
        if _FED.value:
            _in_a_process(f"write:{scratch}/fed:{_FED.value}")
            result["sweep of the demo's network"] = _in_a_process(f"feed:{scratch}/fed")
            _tell(result)
        for n in (_FEW, _TRACKS.value):
            place = f"{scratch}/{n}"
            result[f"{n} tracks"] = {
                "write": _in_a_process(f"write:{place}:{n}"),
                "read": _in_a_process(f"read:{place}"),
            }
            _tell(result)


def _tell(result: dict[str, Any]) -> None:
    _say(result)
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {_OUT.value}", flush=True)


def _in_a_process(child: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.feeding", f"--child={child}"]
    return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])


def _rows(n: int, member: bool) -> Iterator[Any]:
    """Rows of a dataset, made one by one; a track in eight is a decoy and comes last."""
    import numpy as np

    from tda_jax.corpus.dataset import Row
    from tda_jax.models.denoiser import Condition

    noise = np.random.default_rng(0).standard_normal((211, *_LATENT[1:]), np.float32)
    members = n - n // 8
    for i in range(members) if member else range(members, n):
        rng = np.random.default_rng(i)
        mean = np.resize(np.roll(noise, i, axis=0), _LATENT) + np.float32(1e-4 * i)
        embedding = rng.standard_normal((1, _EMBEDDING), np.float32)
        yield Row(
            f"track {i:06d}",
            f"track {i:06d}",
            member,
            0.0,
            mean,
            np.full(_LATENT, 0.1, np.float32),
            rng.standard_normal((2, _MELS), np.float32),
            _LATENT[0] - i % 50,
            ["a caption of the usual length, as a track has it"],
            Condition(embedding=embedding),
            {"title": f"Title {i}", "artist": f"Artist {i % 100}", "file_name": f"{i:06d}.flac"},
        )


def _write(folder: Path, n: int) -> dict[str, Any]:
    from tda_jax.corpus.dataset import write_dataset

    start = time.perf_counter()
    write_dataset(folder, _rows(n, True), _rows(n, False), {"of": "a benchmark"})
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {"seconds": seconds, "tracks_a_second": n / seconds, "bytes": size}


def _read(folder: Path) -> dict[str, Any]:
    """Opens and checks a corpus, then sweeps it with a model that multiplies by one number."""
    import jax.numpy as jnp

    from tda_jax import keys
    from tda_jax.attribution.contract import Model, Terms
    from tda_jax.corpus.dataset import read_dataset

    def terms(params: Any, example: Any, t: Any, noise: Any) -> Terms:
        del t
        return Terms(params["scale"] * example.latent, noise, example.mask)

    start = time.perf_counter()
    corpus = read_dataset(folder)
    opened = time.perf_counter() - start
    model = Model(terms, {"scale": jnp.ones(())}, {"all": ".*"}, 1000, "a scale")
    out = folder.with_name(f"{folder.name} swept")
    seconds = _sweep(model, corpus, keys.Draws(1, 1), out, _CHUNK)()
    n = len(corpus.ids)
    return {
        "open_seconds": opened,
        "sweep_seconds": seconds,
        "tracks_a_second": n / seconds,
        "bytes_a_second": n * corpus.examples.latent[0].nbytes / seconds,
    }


def _feed(folder: Path) -> dict[str, Any]:
    """Times of one sweep by where its corpus is, in turn."""
    import jax
    import jax.numpy as jnp

    from configs.train import get_config
    from tda_jax import examples, keys
    from tda_jax.attribution.contract import Model
    from tda_jax.corpus.dataset import read_dataset
    from tda_jax.evaluation.network import Network, model_of
    from tda_jax.evaluation.small_unet import small_unet
    from tda_jax.models.denoiser import predict_fn
    from tda_jax.training import parts

    sizes = get_config().sizes
    own = {name: sizes[name] for name in parts.Sizes._fields}
    own |= {"latent": _LATENT[2], "text": _EMBEDDING}
    unet = parts.unet("class", parts.Sizes(**own), 0)
    network = Network(
        predict_fn(unet.module), small_unet(0).schedule, unet.params, dict(unet.groups)
    )
    model: Model = model_of(network, unet.params, "the demo's")
    corpus = read_dataset(folder)
    there = examples.in_memory(corpus)
    placed = there._replace(examples=jax.tree.map(jnp.asarray, there.examples))
    given = {"dataset": corpus, "arrays on the device": placed}
    times: dict[str, list[float]] = {name: [] for name in given}
    for i in range(_REPEATS + 1):
        for name, one in given.items():
            out = folder.with_name(f"{name} {i}")
            seconds = _sweep(model, one, keys.Draws(1, 10), out, _FED_CHUNK)()
            if i:  # the first one compiles
                times[name].append(seconds)
    found: dict[str, Any] = {name: statistics.median(each) for name, each in times.items()}
    return found | {
        "times": times,
        "ratio": found["dataset"] / found["arrays on the device"],
        "draws": 10 * len(corpus.ids),
    }


def _sweep(model: Any, corpus: Any, draws: Any, folder: Path, chunk: int) -> Any:
    """A sweep of the losses at θ0 into a new store, which gives the seconds that it took."""
    import numpy as np

    from tda_jax import devices, hosts, params, store
    from tda_jax.attribution import passes, sweep
    from tda_jax.attribution.settings import Settings

    settings = Settings(len(corpus.ids), "all", "exact", replicates=draws.replicates)
    settings = settings._replace(strata=draws.strata)
    swept = sweep.make_sweep(model, draws, 0, 10, devices.local_devices(1))
    moved, rest = params.split(model.params, ".*")
    placed = sweep.place(swept, moved, rest)
    zero = {path: np.zeros(x.shape, x.dtype) for path, x in moved.items()}
    fields = passes.loss_fields(settings, _LATENT[0])

    def run() -> float:
        kept = store.open_store(folder, corpus.ids, fields, {"of": "a benchmark"}, chunk)
        start = time.perf_counter()
        passes.loss_pass(
            *(swept, placed, [zero], [kept], corpus, settings, hosts.ALONE),
            *(lambda *_: None, "sweep"),
        )
        return time.perf_counter() - start

    return run


def _say(result: dict[str, Any]) -> None:
    for name, found in result.items():
        if not name.endswith(" tracks"):
            continue
        write, read = found["write"], found["read"]
        print(
            f"{name}: written {write['tracks_a_second']:.0f} a second, {write['bytes'] / 1e9:.2f} "
            f"GB, peak {write['peak_bytes'] / 1e6:.0f} MB; opened in {read['open_seconds']:.1f} s, "
            f"swept {read['tracks_a_second']:.0f} a second "
            f"({read['bytes_a_second'] / 1e6:.0f} MB/s), peak {read['peak_bytes'] / 1e6:.0f} MB"
        )
    if fed := result.get("sweep of the demo's network"):
        print(
            f"{fed['draws']} draws of the demo's network: {fed['dataset']:.2f} s from the dataset, "
            f"{fed['arrays on the device']:.2f} s from the device, {fed['ratio']:.3f} x"
        )


if __name__ == "__main__":
    app.run(main)
