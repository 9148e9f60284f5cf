"""Audio files of every kind that a user's folder may hold, and what must become of each."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import soundfile

RATE = 16000
HOUR = 3600


class Read(NamedTuple):
    """The file is read whole: so many samples of each channel, and these values where given."""

    frames: int | None = RATE
    rate: int = RATE
    channels: int = 1
    close: float | None = 2**-14  # median distance from `tones`; None for other music
    tracks: int = 1


class Skipped(NamedTuple):
    """The file is left out, with a reason that the pattern is found in."""

    reason: str


class Audio(NamedTuple):
    """A kind of audio file."""

    name: str
    data: Callable[[], bytes]
    outcome: Read | Skipped
    suffix: str = ".wav"


def tones(seconds=1.0, rate=RATE, channels=1):
    t = np.arange(round(seconds * rate))[:, None] / rate
    return (0.4 * np.sin(2 * np.pi * (330 + 110 * np.arange(channels)) * t)).astype(np.float32)


def encoded(wave=None, rate=RATE, container="WAV", encoding="PCM_16", **more):
    out = io.BytesIO()
    wave = tones() if wave is None else wave
    soundfile.write(out, wave, rate, format=container, subtype=encoding, **more)
    return out.getvalue()


def mp3(seconds=3.0, rate=44100, channels=1):
    return encoded(tones(seconds, rate, channels), rate, "MP3", None)


def without_header(data):
    """An MP3 without its first frame, which says how long it is."""
    assert b"Xing" in data[:200] or b"Info" in data[:200]
    return data[data.index(data[:2], 4) :]


def changing(loud_first):
    """An MP3 without a header whose bit rate falls, or rises."""
    noise = 0.2 * np.random.default_rng(0).standard_normal(6 * 22050)
    quiet = 0.0 if loud_first else 0.11  # a file that begins with silence has no first window
    wave = noise * np.linspace(quiet, 1, len(noise)) ** 4
    wave = wave[::-1] if loud_first else wave
    return without_header(encoded(wave.astype(np.float32), 22050, "MP3", None))


def ogg(encoding="VORBIS", seed=0):
    """Ten seconds of noise, in several pages."""
    wave = 0.2 * np.random.default_rng(seed).standard_normal(10 * RATE)
    return encoded(wave.astype(np.float32), RATE, "OGG", encoding)


def paged(change):
    """The pages of such a file after change(pages): each time it is made, they have other names."""
    return b"".join(change([b"OggS" + page for page in ogg().split(b"OggS")[1:]]))


def cut(data, kept=0.6):
    return data[: int(kept * len(data))]


def patched(data, place, new):
    return data[:place] + new + data[place + len(new) :]


def spoilt(data, length=200, place=0.5, seed=0):
    """With random bytes in the middle."""
    return patched(data, int(place * len(data)), np.random.default_rng(seed).bytes(length))


def sized(size, data=None):
    """A WAV whose header says that there are so many bytes of samples."""
    data = encoded() if data is None else data
    return patched(data, data.index(b"data") + 4, struct.pack("<I", size))


def at_rate(rate):
    return patched(encoded(), 24, struct.pack("<I", rate))


def of_channels(count):
    return patched(encoded(), 22, struct.pack("<H", count))


def with_chunks(body=b"abc", padding=b"\0", after=b""):
    data = encoded()
    place = data.index(b"data")
    note = b"note" + struct.pack("<I", len(body)) + body + padding
    return data[:place] + note + data[place:] + after


def with_samples(*values, encoding="FLOAT"):
    wave = tones().astype(np.float64)
    wave[1000 : 1000 + len(values), 0] = values
    return encoded(wave, encoding=encoding)


def endless_flac():
    """A FLAC that was written to a pipe, without the number of its samples."""
    data = bytearray(encoded(container="FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def mp3_in_wav():
    """MPEG layer III as the encoding of a WAV."""
    body = without_header(mp3(1.0))
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 44100, 16000, 1, 0, 12, 1, 2, 417, 1, 0)
    parts = b"fmt " + struct.pack("<I", len(form)) + form + b"data"
    parts += struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WAVE" + parts


def id3v2(body):
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + body


def cover():
    """A tag with a picture, in which bytes look like frames of MP3."""
    picture = b"\0image/png\0\3\0" + b"\xff\xfb\x90\xc4" * 500 + png()
    return id3v2(b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture)


def ape():
    item = struct.pack("<II", 4, 0) + b"Title\0Song"
    sizes = struct.pack("<III", 2000, len(item) + 32, 1)
    ends = [b"APETAGEX" + sizes + struct.pack("<I", flags) + bytes(8) for flags in (0xA << 28, 8)]
    return ends[0] + item + ends[1]


def png():
    def chunk(name, body):
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    rows = zlib.compress(np.random.default_rng(0).bytes(64 * 193))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def hour(sound_at_end):
    wave = np.zeros(HOUR * 8000, np.int16)
    if sound_at_end:
        wave[-8000:] = (32767 * tones(1.0, 8000)[:, 0]).astype(np.int16)
    return encoded(wave, 8000, "FLAC")


NO_AUDIO = "cannot be read as audio"
SILENT = "silent throughout"
CUT = "cut off or damaged"
NOISE = Read(10 * RATE, close=None)
LOSSY = Read(close=0.02)
MUSIC = Read(close=None)
SIX = Read(channels=6, close=0.02)
MP3 = Read(132300, 44100, close=0.02)

_SOUND = [
    *((f"wav {e}", lambda e=e: encoded(encoding=e), Read()) for e in ("PCM_24", "PCM_32")),
    *((f"wav {e}", lambda e=e: encoded(encoding=e), Read()) for e in ("FLOAT", "DOUBLE")),
    *((f"wav {e}", lambda e=e: encoded(encoding=e), LOSSY) for e in ("ULAW", "ALAW")),
    ("wav 16 bits", encoded, Read()),
    ("wav 8 bits", lambda: encoded(encoding="PCM_U8"), LOSSY),
    ("wav ADPCM of IMA", lambda: encoded(encoding="IMA_ADPCM"), Read(16272, close=0.02)),
    ("wav ADPCM of Microsoft", lambda: encoded(encoding="MS_ADPCM"), Read(16192, close=0.02)),
    ("wav GSM", lambda: encoded(encoding="GSM610"), Read(close=0.05)),
    ("wav extensible", lambda: encoded(container="WAVEX"), Read()),
    ("wav big-endian", lambda: encoded(endian="BIG"), Read()),
    ("wav of MP3", mp3_in_wav, Read(None, 44100, close=None)),
    *((c, lambda c=c: encoded(container=c), Read()) for c in ("RF64", "W64", "AIFF", "AU")),
    *((c, lambda c=c: encoded(container=c), Read(), ".x") for c in ("CAF", "FLAC")),
    ("caf ALAC", lambda: encoded(container="CAF", encoding="ALAC_16"), Read(), ".caf"),
    ("ogg", lambda: encoded(container="OGG", encoding="VORBIS"), LOSSY, ".ogg"),
    ("ogg of several pages", ogg, NOISE, ".ogg"),
    ("opus", lambda: ogg("OPUS"), NOISE, ".opus"),
    ("mp3", mp3, MP3, ".mp3"),
    ("flac of 24 bits", lambda: encoded(container="FLAC", encoding="PCM_24"), Read(), ".flac"),
    *(
        (f"{r} Hz", lambda r=r: encoded(tones(1, r), r), Read(r, r))
        for r in (4000, 11025, 48000, 96000, 192000)
    ),
    ("6 channels", lambda: encoded(tones(1, channels=6)), Read(channels=6)),
    ("6 channels ogg", lambda: encoded(tones(1, RATE, 6), RATE, "OGG", None), SIX, ".ogg"),
    ("40 channels", lambda: encoded(tones(1, channels=40)), Read(channels=40)),
    ("full scale, clipped", lambda: encoded(np.sign(tones() + 0.1)), MUSIC),
    ("float beyond full scale", lambda: encoded(32768 * tones(), encoding="FLOAT"), MUSIC),
    ("tone on an offset", lambda: encoded(tones() / 2 + 0.5), MUSIC),
    (
        "one channel silent",
        lambda: encoded(tones(1, RATE, 2) * [1, 0]),
        Read(channels=2, close=None),
    ),
    ("subnormal among others", lambda: with_samples(1e-40, -1e-45), Read()),
    ("two samples", lambda: encoded(tones()[5:7]), Read(2, close=None)),
    ("chunk of odd length", lambda: with_chunks(), Read()),
    ("chunk behind", lambda: with_chunks(after=b"LIST\4\0\0\0INFO"), Read()),
    ("zeros behind", lambda: encoded() + bytes(500), Read()),
    ("tag behind", lambda: encoded() + b"TAG" + bytes(125), Read()),
    ("size of a pipe", lambda: sized(0xFFFFFFFF), Read()),
    ("sizes of a pipe", lambda: patched(sized(0x7FFFFFFF), 4, bytes(4)), Read()),
    ("flac of a pipe", endless_flac, Read(), ".flac"),
    ("tag before flac", lambda: cover() + encoded(container="FLAC"), Read(), ".flac"),
    ("mp3 with a cover", lambda: cover() + mp3(), MP3, ".mp3"),
    ("mp3 with tags behind", lambda: mp3() + ape() + b"TAG" + bytes(125), MP3, ".mp3"),
    (
        "mp3 of rising bit rate, no header",
        lambda: changing(False),
        Read(None, 22050, close=None),
        ".mp3",
    ),
    ("mp3 named wav", mp3, MP3),
    ("wav named mp3", encoded, Read(), ".mp3"),
    ("flac without a suffix", lambda: encoded(container="FLAC"), Read(), ""),
]

_SPOILT = [
    *(
        (f"cut {c}", lambda c=c: cut(encoded(container=c)), CUT)
        for c in ("WAV", "RF64", "W64", "AIFF", "AU")
    ),
    ("cut caf", lambda: cut(encoded(container="CAF")), "malformed", ".caf"),
    ("cut flac", lambda: cut(encoded(container="FLAC")), "breaks off", ".flac"),
    ("cut flac of a pipe", lambda: cut(endless_flac()), "breaks off after sample 0 ", ".flac"),
    ("cut ogg", lambda: cut(ogg()), "last page is incomplete", ".ogg"),
    ("cut opus", lambda: cut(ogg("OPUS")), "last page is incomplete", ".opus"),
    ("ogg cut between pages", lambda: paged(lambda p: p[:-1]), "does not end the", ".ogg"),
    ("cut mp3", lambda: cut(mp3()), r"\d+ of \d+ bytes are there", ".mp3"),
    ("cut mp3, no header", lambda: without_header(mp3())[:-50], "last frame is inc", ".mp3"),
    ("cut mp3 with a cover", lambda: cover() + cut(mp3()), "bytes are there", ".mp3"),
    ("tag before wav", lambda: id3v2(bytes(300)) + encoded(), "a tag of 310 bytes stands"),
    ("tag before cut wav", lambda: id3v2(bytes(300)) + cut(encoded()), "a tag of 310 bytes"),
    ("tag before aiff", lambda: cover() + encoded(container="AIFF"), r"a tag of \d+ bytes"),
    ("cut wav of MP3", lambda: cut(mp3_in_wav()), CUT),
    ("mp3 of falling bit rate, no header", lambda: changing(True), "could be dec", ".mp3"),
    ("mp3 behind mp3", lambda: mp3() + mp3(), "132300 of .* could be dec", ".mp3"),
    (
        "mp3 behind tagged mp3",
        lambda: mp3() + b"TAG" + bytes(125) + cover() + mp3(),
        "132300 of",
        ".mp3",
    ),
    ("mp3 behind mp3 of another rate", lambda: mp3() + mp3(3, 32000), "132300 of", ".mp3"),
    (
        "mp3s without headers",
        lambda: without_header(mp3()) + without_header(mp3(3, 32000)),
        "could be d",
        ".mp3",
    ),
    ("mp3 behind garbage", lambda: spoilt(bytes(3000), 3000, 0) + mp3(), NO_AUDIO, ".mp3"),
    ("mp3 around garbage", lambda: spoilt(mp3(), 3000), "breaks off", ".mp3"),
    (
        "mp3 around zeros",
        lambda: patched(mp3(), 9000, bytes(900)),
        "of 132300 samples could be d",
        ".mp3",
    ),
    (
        "mp3 around zeros, no header",
        lambda: patched(without_header(mp3()), 9000, bytes(900)),
        "no frame begins at byte",
        ".mp3",
    ),
    ("mp3 header only", lambda: mp3()[:300], NO_AUDIO, ".mp3"),
    ("ogg behind ogg", lambda: ogg() + ogg(seed=1), "a second stream begins", ".ogg"),
    ("ogg with a spoilt page", lambda: spoilt(ogg()), "of 160000 samples could", ".ogg"),
    (
        "ogg without a page",
        lambda: paged(lambda p: p[:6] + p[7:]),
        "a page is missing",
        ".ogg",
    ),
    (
        "ogg with pages of another",
        lambda: paged(lambda p: p[:6]) + paged(lambda p: p[6:]),
        "a page is missing",
        ".ogg",
    ),
    (
        "ogg with a hole",
        lambda: paged(lambda p: [*p[:6], p[6][50:], *p[7:]]),
        "no page begins",
        ".ogg",
    ),
    ("flac with a spoilt frame", lambda: spoilt(encoded(container="FLAC")), "breaks off", ".flac"),
    ("size too long", lambda: sized(10**6), "32000 of 1000000 bytes"),
    ("size too short", lambda: sized(100), "31900 bytes follow the 100 bytes"),
    ("size of odd length", lambda: sized(101), "31899 bytes follow the 101 bytes"),
    ("size zero", lambda: sized(0), "promises 0 samples"),
    *((f"{r} Hz", lambda r=r: at_rate(r), f"says {r} samples") for r in (1, 10**9)),
    ("0 Hz", lambda: at_rate(0), NO_AUDIO),
    *((f"{n} channels", lambda n=n: of_channels(n), NO_AUDIO) for n in (0, 65535)),
    *(
        (f"old {c}", lambda c=c: encoded(container=c, encoding=None), f"is {c}, of which")
        for c in ("VOC", "SVX", "IRCAM", "NIST", "MAT5")
    ),
    ("no bytes", lambda: b"", NO_AUDIO),
    ("no bytes of mp3", lambda: b"", NO_AUDIO, ".mp3"),
    ("zero bytes", lambda: bytes(4096), NO_AUDIO),
    ("zero bytes of mp3", lambda: bytes(4096), NO_AUDIO, ".mp3"),
    ("random bytes", lambda: spoilt(bytes(9999), 9999, 0), NO_AUDIO, ".mp3"),
    ("header only", lambda: encoded()[:44], "promises 0 samples"),
    ("half a header", lambda: encoded()[:20], NO_AUDIO),
    (
        "flac header only",
        lambda: encoded(container="FLAC")[:42],
        "0 of 16000 samples could",
        ".flac",
    ),
    ("text", lambda: b"Verse one\n" * 99, NO_AUDIO),
    ("web page", lambda: b"<!DOCTYPE html><p>404 Not Found</p>" * 9, NO_AUDIO, ".mp3"),
    ("pointer of git-lfs", lambda: b"version https://git-lfs.github.com/spec/v1\n", NO_AUDIO),
    ("picture", png, NO_AUDIO, ".mp3"),
    (
        "m4a",
        lambda: b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom\0\0\0\0" + bytes(999),
        NO_AUDIO,
        ".m4a",
    ),
    ("no samples", lambda: encoded(tones(0.0)), "promises 0 samples"),
    ("one sample", lambda: encoded(tones()[5:6]), SILENT),
    ("constant", lambda: encoded(np.full(9000, 0.25)), "within 0.25 .. 0.25"),
    ("silence", lambda: encoded(np.zeros((9000, 2))), SILENT),
    ("dither", lambda: encoded(np.tile([2**-15, 0.0], 900)), SILENT),
    ("opposite phases", lambda: encoded(tones() * [1, -1]), "its mono wave stays"),
    ("subnormal throughout", lambda: encoded(tones() * 1e-40, encoding="FLOAT"), SILENT),
    ("hour of silence", lambda: hour(False), SILENT, ".flac"),
    ("hour, sound at its end", lambda: hour(True), "silent in the first 1 window", ".flac"),
    ("NaN", lambda: with_samples(np.nan), "sample 1000 is not finite"),
    ("Inf", lambda: with_samples(0, np.inf), "sample 1001 is not finite"),
    ("minus Inf of 64 bits", lambda: with_samples(-np.inf, encoding="DOUBLE"), "not finite"),
    ("beyond 32 bits", lambda: with_samples(1e300, encoding="DOUBLE"), "not finite"),
    ("huge", lambda: with_samples(0, 0, -3e38), r"sample 1002 is -3e\+38 times full"),
]

KINDS = [Audio(*row) for row in _SOUND]
KINDS += [Audio(name, data, Skipped(why), *rest) for name, data, why, *rest in _SPOILT]
