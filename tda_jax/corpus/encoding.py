"""Audio files to latents: windows, log-mels, the VAE's posterior; in chunks that survive a kill.

Each chunk of files is one artifact, named by the hash of what decides it: the files' contents, the
windows, the spectrogram, the VAE, the code. So what is there is never computed again, and what
changed always is. Files of many windows make chunks of fewer files, so that memory does not grow
with their length, but for that of one file. A file that cannot be used is skipped with its reason.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from tda_jax import artifact, devices, fingerprint, hosts
from tda_jax import params as tree
from tda_jax.audio import reading
from tda_jax.audio.mel import (
    MelSettings,
    latent_frames,
    log_mel,
    pooled,
    prepare,
    valid_frames,
)
from tda_jax.columns import ahead
from tda_jax.corpus.chunking import Chunk, Cut, File, by_threads, chunks_of
from tda_jax.errors import InputError
from tda_jax.models.pretrained import Component

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total), called as work goes on."""


class Spectrograms(NamedTuple):
    """Windows of files as log-mels.

    Attributes:
        file: position of each window's file in the list that was given.
        start: seconds within the file.
        frames: valid mel frames.
        mel: (n, frames, mels).
        skipped: id -> why nothing of that file is there.
    """

    file: Int[np.ndarray, " n"]
    start: Float[np.ndarray, " n"]
    frames: Int[np.ndarray, " n"]
    mel: Float[np.ndarray, "n frames mels"]
    skipped: dict[str, str]


class Encoded(NamedTuple):
    """Windows of files as posteriors of the VAE, in its own scaling.

    Attributes:
        id: of the file of each window.
        start: seconds within the file.
        frames: valid latent frames.
        mean: (n, frames, bins, channels).
        std: the same.
        log_mel: (n, 2, mels), pooled over time; see `audio.mel.pooled`.
        skipped: id -> why nothing of that file is there.
    """

    id: list[str]
    start: Float[np.ndarray, " n"]
    frames: Int[np.ndarray, " n"]
    mean: Float[np.ndarray, "n frames bins channels"]
    std: Float[np.ndarray, "n frames bins channels"]
    log_mel: Float[np.ndarray, "n 2 mels"]
    skipped: dict[str, str]


def spectrograms(files: Sequence[File], cut: Cut, settings: MelSettings) -> Spectrograms:
    """Reads files as log-mels, several at a time; one that cannot be used is skipped, and said so.

    Raises:
        InputError: the settings fit no file.
    """
    window = round(cut.seconds * settings.rate)
    valid_frames(1, window, settings)  # settings that fit no file are no file's fault

    def read(i: int) -> list[tuple[int, float, int, np.ndarray]] | str:
        try:
            return [
                (
                    i,
                    w.start,
                    valid_frames(len(w.samples), window, settings),
                    _mel(w, window, settings),
                )
                for w in reading.windows(files[i].path, settings.rate, *cut)
            ]
        except InputError as error:
            return str(error)

    found, skipped = [], {}
    for file, some in zip(files, by_threads(read, range(len(files))), strict=True):
        if isinstance(some, str):
            skipped[file.id] = some
            continue
        found += some
        if not some:
            which = "every window" if cut.count is None else f"the first {cut.count} window(s)"
            skipped[file.id] = (
                f"{file.path}: silent in {which} of {cut.seconds} s; take it out, or take more "
                "windows of each file"
            )
    shape = (0, window // settings.hop, settings.mels)
    which, start, frames, mels = zip(*found, strict=True) if found else ((), (), (), ())
    return Spectrograms(
        np.array(which, np.int32),
        np.array(start, np.float32),
        np.array(frames, np.int32),
        np.stack(mels) if found else np.empty(shape, np.float32),
        skipped,
    )


def make_encoder(vae: Component, batch: int, used: tuple[jax.Device, ...]) -> devices.RowMap:
    """The encoder over devices: (params, mel) -> the mean and std of its posterior."""

    def posterior(params: Any, mel: Float[Array, "frames mels"]) -> dict[str, Array]:
        x = mel[None, :, :, None]
        q = vae.module.apply({"params": params}, x, method="encode")
        return {"mean": q.mean[0], "std": q.std[0]}

    return devices.row_map(posterior, used, batch)


def encode(
    files: Sequence[File],
    cut: Cut,
    settings: MelSettings,
    vae: Component,
    folder: Path,
    chunk: int,
    batch: int,
    used: tuple[jax.Device, ...],
    progress: Progress,
    among: hosts.Hosts = hosts.ALONE,
) -> Iterator[Chunk]:
    """Encodes files chunk by chunk, if they are not there already.

    While the VAE encodes a chunk the files of the next are read, and those of the one after are
    looked at. The log-mels of no more than two chunks are in memory, 256 MiB of each unless one
    file has more.

    Args:
        files: in the order of the result.
        cut: into windows.
        settings: of the log-mels.
        vae: one with a channel in, for spectrograms.
        folder: of the chunks' artifacts.
        chunk: files that are encoded and kept together at most.
        batch: windows on one device at a time.
        used: local devices.
        progress: told of files done.
        among: this process of those that share the work; the chunks of its share are what it gives.

    Raises:
        InputError: the VAE takes no such spectrograms.
    """
    _refuse(cut, settings, vae)
    mapped, source = make_encoder(vae, batch, used), _source(cut, settings, vae)
    placed = devices.replicate(vae.params, used)

    def cut_up(start: int) -> list[tuple[Chunk, list[File]]]:
        return chunks_of(files[start : start + chunk], folder, source, cut, settings)

    def heard(made: tuple[Chunk, list[File]]) -> Spectrograms | None:
        one, readable = made
        return None if one.path.exists() else spectrograms(readable, cut, settings)

    mine = range(0, len(files), chunk)
    mine = [mine[i] for i in hosts.share(among, len(mine))]
    total = sum(len(files[start : start + chunk]) for start in mine)
    done = 0
    progress("encoding", done, total)
    each = (made for _, some in ahead(cut_up, mine) for made in some)
    for (made, _), found in ahead(heard, each):
        if found is not None:
            _keep(made, found, vae, _posteriors(found, vae, mapped, placed))
        yield made
        done += len(made.ids) + len(made.unread)
        progress("encoding", done, total)


def read_chunk(chunk: Chunk) -> Encoded:
    """What a chunk holds.

    Raises:
        InputError: its artifact is damaged, or of something else.
    """
    found, notes = artifact.load(chunk.path, chunk.made_of)
    ids = [chunk.ids[i] for i in found.pop("file")]
    return Encoded(ids, **found, skipped=chunk.unread | notes["skipped"])


def _keep(
    chunk: Chunk, seen: Spectrograms, vae: Component, posteriors: Mapping[str, np.ndarray]
) -> None:
    factor = vae.module.config.factor
    frames = np.array([latent_frames(int(n), factor) for n in seen.frames], np.int32)
    told = {"file": seen.file, "start": seen.start, "frames": frames, "log_mel": _pooled(seen)}
    artifact.save(chunk.path, {**posteriors, **told}, chunk.made_of, {"skipped": seen.skipped})


def _posteriors(
    seen: Spectrograms, vae: Component, mapped: devices.RowMap, placed: Any
) -> dict[str, np.ndarray]:
    n, frames, mels = seen.mel.shape
    if not n:
        c = vae.module.config
        shape = (0, frames // c.factor, mels // c.factor, c.latent_channels)
        return {"mean": np.empty(shape, np.float32), "std": np.empty(shape, np.float32)}
    return devices.results(mapped, placed, lambda positions: seen.mel[positions], n)


def _pooled(seen: Spectrograms) -> np.ndarray:
    rows = [pooled(mel, int(n)) for mel, n in zip(seen.mel, seen.frames, strict=True)]
    return np.stack(rows) if rows else np.empty((0, 2, seen.mel.shape[2]), np.float32)


def _mel(window: reading.Window, length: int, settings: MelSettings) -> np.ndarray:
    return log_mel(prepare(window.samples, length), settings)


def _source(cut: Cut, settings: MelSettings, vae: Component) -> dict[str, Any]:
    return {
        "vae": _weights(vae),
        "cut": cut._asdict(),
        "spectrogram": settings._asdict(),
        "code": fingerprint.of_code(__name__),
        "versions": fingerprint.versions(),
    }


def _weights(vae: Component) -> str:
    """The VAE without its scaling, which enters into no posterior."""
    unscaled = dataclasses.replace(vae.module.config, scaling_factor=1.0, shift_factor=0.0)
    leaves = sorted(tree.flatten(vae.params).items())
    return fingerprint.of_text(
        repr(unscaled), *(f"{path} {x.shape} {fingerprint.of_array(x)}" for path, x in leaves)
    )


def _refuse(cut: Cut, settings: MelSettings, vae: Component) -> None:
    c = vae.module.config
    if c.in_channels != 1:
        raise InputError(
            f"the VAE has {c.in_channels} channels in; one for spectrograms has 1 (Riffusion's "
            "images are not encoded here; give latents as arrays)"
        )
    frames = round(cut.seconds * settings.rate) // settings.hop
    if frames % c.factor or settings.mels % c.factor or not frames:
        step = c.factor * settings.hop / settings.rate
        raise InputError(
            f"windows of {cut.seconds} s have {frames} frames of {settings.mels} mels, which the "
            f"VAE's factor of {c.factor} does not divide; give a multiple of {step:g} s"
        )
