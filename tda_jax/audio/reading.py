"""Audio files to float32 mono at a given rate, by parts, with every sample checked.

Reads what libsndfile 1.2 reads of WAV, RF64, W64, FLAC, Ogg (Vorbis, Opus), MP3, AIFF, AU and CAF,
by what is in a file, whatever its name ends in. Memory holds one block and one window, so an hour
is read like a second. Every sample is decoded from the start of the file: seeking in MP3 is not
exact.

What is refused, and not passed on without a word:

- what is no file, as a pipe, which would be waited for; what cannot be opened or decoded; other
  containers, in which nobody could tell a whole file; rates beyond `RATES`; no samples; samples
  that are not finite, or above `LOUDEST`, as damage makes them;
- silence throughout: the wave, as mono, spans less than 2 · `SILENCE` from its lowest to its
  highest sample, so that a constant offset is silence too;
- a file that was cut off, or of which the decoder plays a part only, as far as it can be told. It
  can where the header counts the samples (FLAC) or bytes (WAV, RF64, W64, AIFF, AU, CAF, MP3 with a
  Xing or Info header), where the end is marked (Ogg), or where the last frame is incomplete (MP3).
  It cannot for an MP3 without such a header that ends with a frame, a WAV, AU or CAF that was
  written to a pipe without its size, nor where silence or noise stands in place of music.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from tda_jax.audio.containers import cut_off, cut_off_mp3
from tda_jax.errors import InputError

SILENCE = 1e-4  # of full scale, -80 dB: three steps of 16 bits, below which is only dither
LOUDEST = 2.0**33  # of full scale: twice what a float that holds 32-bit integers has
RATES = (1_000, 1_000_000)  # samples a second; others are damage, and would fill the memory
_CONTAINERS = {"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"}
_BLOCK = 1 << 16  # samples of each channel that are decoded at a time
_WIDE = 8  # channels from which on fewer are
_UNKNOWN = 1 << 62  # libsndfile's number of samples where a header does not say
_AGAIN = "Write it again from its source, or take it out of the corpus"
_OPENING = (soundfile.SoundFileError, OSError, RuntimeError, TypeError, ValueError)


class _Forwards(soundfile.SoundFile):
    """A file that is read from start to end.

    soundfile seeks after every read of a file that can be sought in, to where it already is, and
    libmpg123 then plays the next frame without the bits that earlier frames hold for it: an MP3
    read by blocks would have clicks of up to full scale at their edges.
    """

    def seekable(self) -> bool:
        """No: what comes next is what is read next."""
        return False


class Info(NamedTuple):
    """What is known of a file.

    Attributes:
        rate: samples a second of each channel.
        channels: at least 1.
        frames: samples of each channel. From `info`, what the header says, None where it does not,
            and a guess for an MP3 without such a header; from `check`, those that were decoded.
        container: as libsndfile names it, such as "WAV".
        encoding: likewise, such as "PCM_16".
    """

    rate: int
    channels: int
    frames: int | None
    container: str
    encoding: str


class Window(NamedTuple):
    """A part of a file.

    Attributes:
        start: seconds from the start of the file.
        samples: mono, at the rate that was asked for.
    """

    start: float
    samples: Float32[np.ndarray, " samples"]


def info(path: Path) -> Info:
    """Reads a file's header.

    Raises:
        InputError: the file cannot be opened, or its header says that it has no samples.
    """
    with _opened(path) as file:
        frames = file.frames if file.frames < _UNKNOWN else None
        return Info(file.samplerate, file.channels, frames, file.format, file.subtype)


def check(path: Path) -> Info:
    """Decodes a whole file and refuses one that cannot be used, as this module says.

    Returns:
        its header, with the number of samples that were decoded.

    Raises:
        InputError: the file cannot be used.
    """
    found = info(path)
    decoded, low, high = 0, np.inf, -np.inf
    for block in _mono(path):
        decoded += len(block)
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    _refuse_cut(path, found, decoded)
    if high - low < 2 * SILENCE:
        raise InputError(
            f"{path}: silent throughout, its mono wave stays within {low:.2g} .. {high:.2g} of "
            f"full scale where {2 * SILENCE} apart is the least. {_AGAIN}"
        )
    return found._replace(frames=decoded)


def windows(
    path: Path,
    rate: int,
    seconds: float,
    hop: float | None = None,
    count: int | None = None,
    shortest: float | None = None,
) -> Iterator[Window]:
    """The windows of a file in turn, after `check` has passed it.

    A window that is silent, in the sense of this module, is left out; its place stays empty. A
    file shorter than a window gives one, as long as the file is. What is left after the last whole
    window is a window of its own if it is long enough and not wholly within the one before.

    Args:
        path: the file.
        rate: of the result, in samples a second.
        seconds: length of a window, rounded to whole samples.
        hop: seconds from one start to the next; by default `seconds`, so that they do not overlap.
        count: at most so many windows, the silent ones counted; by default all.
        shortest: seconds that the last window must have, unless it is the first; by default half a
            window.

    Yields:
        windows of up to round(rate · seconds) samples.

    Raises:
        InputError: a length is not positive; the file cannot be used. Both at the call.
    """
    lengths = {"rate": rate, "seconds": seconds, "hop": hop, "count": count}
    for name, value in lengths.items():
        if value is not None and value <= 0:
            raise InputError(f"{name} = {value}; give a number above 0")
    length, step = round(rate * seconds), round(rate * (seconds if hop is None else hop))
    least = round(rate * (seconds / 2 if shortest is None else shortest))
    if not length or not step:
        raise InputError(
            f"windows of {seconds} s, {hop} s apart, at {rate} Hz are less than a sample; give more"
        )
    check(path)
    return _windows(path, rate, length, step, count, least)


def read(
    path: Path, rate: int, start: float = 0.0, seconds: float | None = None
) -> Float32[np.ndarray, " samples"]:
    """Reads a part of a file, after `check` has passed the file.

    Args:
        path: the file.
        rate: of the result, in samples a second.
        start: seconds from the start of the file.
        seconds: length; by default, and where the file ends before, what there is.

    Returns:
        (samples,), mono; a part may be silent where the file is not.

    Raises:
        InputError: the file cannot be used; it ends before `start`; a length is not positive.
    """
    if start < 0 or (seconds is not None and seconds <= 0):
        raise InputError(
            f"{path}: start = {start}, seconds = {seconds}; give a start of 0 or more and a "
            "length above 0"
        )
    check(path)
    first = round(rate * start)
    last = None if seconds is None else first + round(rate * seconds)
    parts, place = [np.empty(0, np.float32)], 0
    for block in _resampled(path, rate):
        parts.append(block[max(0, first - place) : None if last is None else max(0, last - place)])
        place += len(block)
        if last is not None and place >= last:
            break
    samples = np.concatenate(parts)
    if not len(samples):
        raise InputError(
            f"{path}: lasts {place / rate:.2f} s and has nothing from {start} s on; start earlier"
        )
    return samples


def is_silent(samples: Float32[np.ndarray, " samples"]) -> bool:
    """Whether a wave spans less than 2 · `SILENCE` from its lowest to its highest sample."""
    return float(np.ptp(samples)) < 2 * SILENCE


def _windows(
    path: Path, rate: int, length: int, step: int, count: int | None, least: int
) -> Iterator[Window]:
    held, at = np.empty(0, np.float32), 0  # samples of the file from number `at` on
    number = 0  # of the next window
    for block in _resampled(path, rate):
        held = np.concatenate([held, block])
        while len(held) >= number * step - at + length and (count is None or number < count):
            samples = held[number * step - at :][:length]
            if not is_silent(samples):
                yield Window(number * step / rate, samples)
            number += 1
            passed = min(number * step - at, len(held))
            held, at = held[passed:], at + passed
        if count is not None and number >= count:
            return
    rest = held[number * step - at :]
    new = len(rest) > max(0, length - step) if number else len(rest) > 0
    if new and (number == 0 or len(rest) >= least) and not is_silent(rest):
        yield Window(number * step / rate, rest)


def _resampled(path: Path, rate: int) -> Iterator[np.ndarray]:
    """A file's mono wave at a rate; what librosa.resample(res_type="soxr_hq") gives of it all."""
    native = info(path).rate
    if native == rate:
        yield from _mono(path)
        return
    stream = soxr.ResampleStream(native, rate, 1, dtype="float32", quality="HQ")
    for block in _mono(path):
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _mono(path: Path) -> Iterator[np.ndarray]:
    """The mean of a file's channels, block by block; every sample is finite."""
    place = 0
    with _opened(path) as file:
        size = max(1, _BLOCK * _WIDE // max(_WIDE, file.channels))
        while True:
            try:
                block = file.read(size, dtype="float32", always_2d=True)
            except _OPENING as error:
                whole = f" of {file.frames}" if file.frames < _UNKNOWN else ""
                raise InputError(
                    f"{path}: breaks off after sample {place}{whole} ({_said(error)}); it is "
                    f"damaged or cut off. {_AGAIN}"
                ) from error
            if not len(block):
                return
            _refuse_values(path, block, place)
            place += len(block)
            yield block.mean(axis=1)


def _refuse_values(path: Path, block: np.ndarray, place: int) -> None:
    if (np.abs(block) <= LOUDEST).all():
        return
    row, channel = np.argwhere(~(np.abs(block) <= LOUDEST))[0]
    value = float(block[row, channel])
    what = f"{value:.3g} times full scale" if np.isfinite(value) else "not finite"
    raise InputError(f"{path}: sample {place + row} is {what}. {_AGAIN}")


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("it is no file")  # to open a pipe would be to wait for its other end
        # By number: a name would lead soundfile to judge the file by what its name ends in.
        with (
            path.open("rb") as named,
            open(named.fileno(), "rb", closefd=False) as handle,
            _Forwards(handle) as file,
        ):
            _refuse_header(path, file)
            yield file
    except InputError:
        raise
    except _OPENING as error:
        raise InputError(
            f"{path}: cannot be read as audio ({_said(error)}); give WAV, FLAC, Ogg or MP3, whole "
            "and with permission to read it"
        ) from error


def _said(error: Exception) -> str:
    """What is wrong, without the number that the file has in this process."""
    return getattr(error, "error_string", str(error)).removesuffix(".")


def _refuse_header(path: Path, file: soundfile.SoundFile) -> None:
    if file.format not in _CONTAINERS:
        raise InputError(
            f"{path}: is {file.format}, of which nobody could tell whether it is whole; give WAV, "
            "FLAC, Ogg or MP3"
        )
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise InputError(
            f"{path}: its header says {file.samplerate} samples a second, where music has "
            f"{RATES[0]} to {RATES[1]}. {_AGAIN}"
        )
    if file.frames == 0:
        raise InputError(f"{path}: its header promises 0 samples. {_AGAIN}")


def _refuse_cut(path: Path, found: Info, decoded: int) -> None:
    try:
        mp3 = found.container == "MP3"
        cause = cut_off_mp3(path, decoded) if mp3 else cut_off(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}). {_AGAIN}") from error
    # The number of samples that is known of an MP3 may be a guess.
    if cause is None and not mp3 and decoded < (found.frames or 0):
        cause = f"{decoded} of {found.frames} samples could be decoded"
    if cause is None and decoded == 0:
        cause = "no samples could be decoded"
    if cause is not None:
        raise InputError(f"{path}: cut off or damaged, {cause}. {_AGAIN}")
