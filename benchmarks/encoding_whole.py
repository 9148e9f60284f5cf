"""The worker of `benchmarks.encoding`: files to kept chunks, on the cores that it is given."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.worker import serve

CHUNK, BATCH = 8, 8


def _encoding(files: list[str], seconds: float, cores: list[int]) -> Callable[[], Any]:
    """Encodes the files with the demo's VAE into a new folder, as a call."""
    os.sched_setaffinity(0, cores)  # before JAX starts its threads
    from benchmarks.encoding import demo_vae
    from tda_jax import devices
    from tda_jax.audio.mel import MelSettings
    from tda_jax.corpus import chunking, encoding
    from tda_jax.training.parts import component

    vae = component("AutoencoderKL", demo_vae(), 0)
    listed = [chunking.File(str(i), Path(file)) for i, file in enumerate(files)]
    cut, used = chunking.Cut(seconds, count=None), devices.local_devices(None)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            kept = encoding.encode(
                listed, cut, MelSettings(), vae, Path(folder), CHUNK, BATCH, used, _silent
            )
            assert len(list(kept)) == -(-len(files) // CHUNK)

    return run


def _silent(*_: object) -> None:
    pass


if __name__ == "__main__":
    serve({"encoding": _encoding})
