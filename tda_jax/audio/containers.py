"""What a container says of its own length, so that a file that was cut off is not taken for whole.

Decoders are kind to files that were cut off: they play what is there. Four containers say enough
to tell, and this module reads that much of them:

- WAV, RF64 and AIFF: the size of the chunk of samples, against the size of the file.
- Ogg (Vorbis, Opus, FLAC): the last page must be whole and carry the mark "end of stream".
- MP3: a Xing or Info header says how many bytes there are. Where there is none, the frames are
  counted: decoders then guess from the first frame's bit rate, and stop early where that guess
  falls short.

Written from the formats' public descriptions: RIFF and RF64 (EBU Tech 3306), AIFF (Apple 1989),
Ogg (RFC 3533), ISO 11172-3 and 13818-3 (MPEG audio frames), Xing's VBR header.
"""

import mmap
import struct
from pathlib import Path

_PLACEHOLDER = 0x7FFF0000  # from here on a 32-bit size is what a pipe writes for "not known"
_PAGE = 27 + 255 + 255 * 255  # the largest page of an Ogg stream, in bytes
_LAST_PAGE = 0x04
# Samples that decoders rightly drop of an MP3 without a header: the encoder's lead-in and padding.
_MP3_SLACK = 3 * 1152
# Bit rates of layer III in kbit/s by index, and sample rates in Hz, by version (1, 2, 2.5).
_KBITS = {
    1: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def cut_off(path: Path) -> str | None:
    """Why a file is less than its container promises, or None where nothing says so.

    Only the containers that this module names are looked at; a placeholder for the size, which
    programs write that cannot seek in their output, promises nothing.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(12)
        if magic[:4] in (b"RIFF", b"RF64", b"RIFX") and magic[8:] == b"WAVE":
            order = ">" if magic[:4] == b"RIFX" else "<"
            return _short_chunk(file, size, b"data", order)
        if magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
            return _short_chunk(file, size, b"SSND", ">")
        if magic[:4] == b"OggS":
            file.seek(max(0, size - _PAGE))
            return _open_end(file.read())
    return None


def cut_off_mp3(path: Path, decoded: int) -> str | None:
    """Why an MP3 file is less than it promises, or decoded to less than it holds; None if neither.

    Args:
        path: of a file that was found to be MP3.
        decoded: samples of each channel that came out of it.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = _after_id3(data)
        promised = _xing_bytes(data[place : place + 200])
        if promised is not None:
            there = len(data) - place
            return f"{there} of {promised} bytes are there" if there < promised else None
        samples = 0
        while frame := _mp3_frame(data[place : place + 4]):
            length, count = frame
            if place + length > len(data):
                break
            place, samples = place + length, samples + count
    least = samples - _MP3_SLACK
    return f"{decoded} of {samples} samples could be decoded" if decoded < least else None


def _short_chunk(file, size: int, wanted: bytes, order: str) -> str | None:  # noqa: ANN001
    long_size = None  # RF64 keeps the size of its samples in a chunk of its own
    while len(head := file.read(8)) == 8:
        name, length = head[:4], struct.unpack(f"{order}I", head[4:])[0]
        if name == b"ds64":
            body = file.read(length + length % 2)
            long_size = struct.unpack("<Q", body[8:16])[0] if len(body) >= 16 else None
            continue
        if name == wanted:
            length = long_size if long_size is not None else length
            there = size - file.tell()
            known = long_size is not None or 0 < length < _PLACEHOLDER
            short = known and there < length
            return f"{there} of {length} bytes of samples are there" if short else None
        file.seek(length + length % 2, 1)
    return f"it has no {wanted.decode()} chunk, where samples would be"


def _open_end(tail: bytes) -> str | None:
    place = tail.rfind(b"OggS")
    header = tail[place : place + 27]
    if place < 0 or len(header) < 27:
        return "its last page is incomplete"
    table = tail[place + 27 : place + 27 + header[26]]
    if len(table) < header[26] or len(tail) < place + 27 + len(table) + sum(table):
        return "its last page is incomplete"
    if not header[5] & _LAST_PAGE:
        return "its last page does not end the stream"
    return None


def _after_id3(data: mmap.mmap) -> int:
    """Where the first frame stands: behind tags, whose sizes are written in 7 bits a byte."""
    place = 0
    while data[place : place + 3] == b"ID3" and len(data) >= place + 10:
        size = data[place + 6 : place + 10]
        place += 10 + sum(byte << (7 * i) for i, byte in enumerate(reversed(size)))
    return place


def _xing_bytes(frame: bytes) -> int | None:
    """The bytes that an MP3's header promises; the header is its first frame, with no sound."""
    if _mp3_frame(frame[:4]) is None:
        return None
    newest, mono = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    place = 4 + ((17 if mono else 32) if newest else (9 if mono else 17))
    header = frame[place : place + 16]
    if header[:4] not in (b"Xing", b"Info") or len(header) < 16 or header[7] & 3 != 3:
        return None
    return struct.unpack(">I", header[12:16])[0]


def _mp3_frame(head: bytes) -> tuple[int, int] | None:
    """Bytes and samples of a layer III frame, from its four first bytes; None for other bytes."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate, kbits = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version not in _RATES or rate == 3 or not 1 <= kbits <= 14:
        return None
    samples = 1152 if version == 3 else 576
    bits = 1000 * _KBITS[1 if version == 3 else 2][kbits - 1]
    length = samples // 8 * bits // _RATES[version][rate] + (head[2] >> 1 & 1)
    return length, samples
