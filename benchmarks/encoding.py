"""Encoding of audio on one core: files a second, step by step, and what bounds it.

    python -m benchmarks.encoding --out=benchmarks/results/encoding-cpu.json

The files are the demo's music (every container and rate, 2 to 8 s) and one song of three minutes
(stereo MP3 at 44.1 kHz), cut into windows of 10.24 s as AudioLDM's are. The VAEs are AudioLDM's, at
full size with random weights, and the demo's. For the steps the process keeps to one core; what the
VAE takes, an accelerator takes over. Before that files are encoded as `experiments.encode_corpus`
does it, from file to kept chunk with the demo's VAE, by one core and by all: reading by threads
while the VAE works.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import hardware
from benchmarks.worker import Worker

_OUT = flags.DEFINE_string("out", None, "JSON file for the result.", required=True)
_WORKS = flags.DEFINE_integer("works", 8, "Works of music, six files each.")
_SECONDS, _SONG, _SONGS = 10.24, 180.0, 16
_REPEATS = 3
_AUDIOLDM = {
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 8,
    "block_out_channels": [128, 256, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 2,
}


def main(argv: list[str]) -> None:
    """Measures, prints and writes the result."""
    del argv
    machine, cores = hardware.describe(), sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        short, song = _music(Path(scratch))
        whole = {
            "demo files": _whole(short, cores),
            "song of 3 minutes": _whole([song] * _SONGS, cores),
        }
        os.sched_setaffinity(0, cores[:1])  # before JAX starts its threads
        from tda_jax.audio import reading
        from tda_jax.audio.mel import MelSettings, log_mel, prepare

        settings = MelSettings()
        window = round(_SECONDS * settings.rate)
        result: dict[str, Any] = {"machine": machine, "seconds_of_a_window": _SECONDS}
        for name, files in (("demo files", short), ("song of 3 minutes", [song])):
            read = [list(reading.windows(f, settings.rate, _SECONDS)) for f in files]
            waves = [w.samples for some in read for w in some]
            steps = {
                "check": lambda files=files: [reading.check(f) for f in files],
                "check, read, resample": lambda files=files: [
                    list(reading.windows(f, settings.rate, _SECONDS)) for f in files
                ],
                "log-mel": lambda waves=waves: [
                    log_mel(prepare(w, window), settings) for w in waves
                ],
            }
            result[name] = {"files": len(files), "windows": len(waves)}
            result[name] |= {step: _median(work) / len(files) for step, work in steps.items()}
            result[name] |= whole[name]
        mel = log_mel(prepare(waves[0], window), settings)
        result["VAE, a window"] = {
            "AudioLDM's": _vae(_AUDIOLDM, mel),
            "the demo's": _vae(demo_vae(), mel),
        }
    _say(result)
    Path(_OUT.value).write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {_OUT.value}")


def _music(folder: Path) -> tuple[list[Path], Path]:
    """The demo's files, and a song made of them."""
    import numpy as np
    import soundfile

    from tda_jax.audio import reading
    from tda_jax.demo.music import make_music

    make_music(folder / "music", folder / "provenance.jsonl", works=_WORKS.value)
    files = sorted(p for p in (folder / "music").iterdir() if p.suffix != ".jsonl")
    rate = 44100
    parts = [next(iter(reading.windows(f, rate, 8.0))).samples for f in files]
    wave = np.resize(np.concatenate(parts), int(_SONG * rate))
    song = folder / "song.mp3"
    soundfile.write(song, np.stack([wave, np.roll(wave, 99)], axis=1), rate)
    return files, song


def _whole(files: list[Path], cores: list[int]) -> dict[str, float]:
    """Seconds a file from file to kept chunk, by one core and by all, in turn."""
    names, ways = [str(file) for file in files], {}
    for n in sorted({1, len(cores)}):
        way = f"whole, {n} cores"
        ways[way] = Worker("benchmarks.encoding_whole")
        ways[way].ask(setup="encoding", name=way, files=names, seconds=_SECONDS, cores=cores[:n])
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(_REPEATS):
        for way, worker in ways.items():
            seconds[way].append(worker.ask(time=way))
    for worker in ways.values():
        worker.close()
    return {way: statistics.median(some) / len(files) for way, some in seconds.items()}


def demo_vae() -> dict[str, Any]:
    """The config of the demo's VAE."""
    from configs.train import get_config
    from tda_jax.training import parts

    sizes = get_config().sizes
    return dict(parts.vae(parts.Sizes(**{k: sizes[k] for k in parts.Sizes._fields}), 0).config)


def _vae(config: dict[str, Any], mel: Any) -> dict[str, float]:
    """Seconds of a window, and its floating-point operations."""
    import jax

    from tda_jax.training.parts import component

    made = component("AutoencoderKL", config, 0)
    encode = jax.jit(lambda p, x: made.module.apply({"params": p}, x, method="encode").mean)
    compiled = encode.lower(made.params, mel[None, :, :, None]).compile()
    run = lambda: jax.block_until_ready(compiled(made.params, mel[None, :, :, None]))  # noqa: E731
    run()
    return {"seconds": _median(run), "flops": float(compiled.cost_analysis()["flops"])}


def _median(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _say(result: dict[str, Any]) -> None:
    for name in ("demo files", "song of 3 minutes"):
        row = result[name]
        per_file = row["check, read, resample"] + row["log-mel"]
        windows = row["windows"] / row["files"]
        print(f"{name}: {1 / per_file:.1f} files a second on one core, {windows:g} windows each")
        steps = ("check", "check, read, resample", "log-mel")
        for step in (*steps, *(way for way in row if way.startswith("whole"))):
            print(f"  {step:<24} {1e3 * row[step]:8.1f} ms a file")
        for vae, cost in result["VAE, a window"].items():
            seconds = windows * cost["seconds"]
            share = seconds / (seconds + per_file)
            print(
                f"  with {vae} VAE: {1 / (seconds + per_file):.2f} files a second; "
                f"{100 * share:.0f} % of the time is the VAE's, at "
                f"{cost['flops'] / cost['seconds'] / 1e9:.0f} GFLOP/s"
            )


if __name__ == "__main__":
    app.run(main)
