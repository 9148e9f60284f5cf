"""What a container says of its own length, so that a file that was cut off is not taken for whole.

Decoders are kind to files that were cut off: they play what is there. These containers say enough
to tell, and this module reads that much of them:

- WAV, RF64, W64, AIFF and AU: the size of the samples, against the size of the file. In a WAV,
  what follows the samples must be a chunk too, or a tag, and not more samples.
- Ogg (Vorbis, Opus, FLAC): one page must follow the other, the last must carry the mark "end of
  stream", and no stream may begin after it, of which decoders would play nothing.
- MP3: a Xing or Info header says how many bytes and frames there are. The frames are counted too:
  decoders stop early where a second file was put behind the first, or where, without a header, the
  first frame's bit rate lets them guess too few.

Written from the formats' public descriptions: RIFF and RF64 (EBU Tech 3306), W64 (Sony 2003), AIFF
(Apple 1989), AU (Sun 1992), Ogg (RFC 3533), ISO 11172-3 and 13818-3 (MPEG audio frames), Xing's VBR
header, ID3 and APE tags.
"""

import mmap
import struct
from pathlib import Path
from typing import BinaryIO

_PLACEHOLDER = 0x7FFF0000  # from here on a 32-bit size is what a pipe writes for "not known"
_WAVE64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")  # of Sony's chunk "riff"
_WAVE64_CHUNK = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # behind the four letters of a chunk
_FIRST_PAGE, _LAST_PAGE = 0x02, 0x04
# Samples that decoders rightly drop of an MP3: the encoder's lead-in and padding. A header may
# give up to 4095 for each of them, and stands in a frame without sound.
_MP3_SLACK, _HEADER_SLACK = 3 * 1152, 2 * 4095
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
        magic = file.read(16)
        if magic[:4] in (b"RIFF", b"RF64", b"RIFX") and magic[8:12] == b"WAVE":
            order = ">" if magic[:4] == b"RIFX" else "<"
            return _short_chunk(file, size, b"data", order) or _stray(file, size)
        if magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC"):
            return _short_chunk(file, size, b"SSND", ">")
        if magic == _WAVE64:
            return _short_wave64(file, size)
        if magic[:4] == b".snd":
            start, length = struct.unpack(">II", magic[4:12])
            return _short(size - start, length) if length < _PLACEHOLDER else None
        if magic[:4] == b"OggS":
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _open_end(data)
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
        place = _after_tags(data, 0)
        frames, promised = _xing(data[place : place + 200])
        if promised is not None and len(data) - place < promised:
            return f"{len(data) - place} of {promised} bytes are there"
        first = _mp3_frame(data[place : place + 4])
        samples, part = _count_frames(data, place)
    if promised is None and part:
        return f"its last frame is incomplete, {part}"
    headed = frames is not None and first is not None
    if headed:
        samples = max(samples, (frames + 1) * first[1])
    least = samples - _MP3_SLACK - (first[1] + _HEADER_SLACK if headed else 0)
    return f"{decoded} of {samples} samples could be decoded" if decoded < least else None


def _short_chunk(file: BinaryIO, size: int, wanted: bytes, order: str) -> str | None:
    """What is missing of a chunk; the file is left behind it."""
    file.seek(12)
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
            file.seek(length if known else there, 1)
            return _short(there, length) if known else None
        file.seek(length + length % 2, 1)
    return f"it has no {wanted.decode()} chunk, where samples would be"


def _stray(file: BinaryIO, size: int) -> str | None:
    """What stands behind a WAV's samples, if it is neither a chunk nor a tag nor zeros."""
    place = file.tell()
    head = file.read(9)
    # A chunk of odd length has a byte of padding behind it, which some programs leave out.
    names = [head[i : i + 4] for i in ((0, 1) if place % 2 else (0,))]
    if len(head) < 9 or not any(head) or any(_printable(n) for n in names):
        return None
    return f"{size - place} bytes follow the samples that its header counts, and are no chunk"


def _printable(name: bytes) -> bool:
    return all(32 <= letter < 127 for letter in name)


def _short_wave64(file: BinaryIO, size: int) -> str | None:
    file.seek(40)
    while len(head := file.read(24)) == 24:
        length = struct.unpack("<Q", head[16:])[0] - 24
        if head[:16] == b"data" + _WAVE64_CHUNK:
            return _short(size - file.tell(), length) if length < 1 << 62 else None
        if not 0 <= length < size:
            break
        file.seek(length + -length % 8, 1)
    return "it has no data chunk, where samples would be"


def _short(there: int, length: int) -> str | None:
    return f"{there} of {length} bytes of samples are there" if there < length else None


def _open_end(data: mmap.mmap) -> str | None:
    """What is wrong with the end of an Ogg file, or with a page on the way to it."""
    place, ended = 0, False
    while data[place : place + 4] == b"OggS":
        header = data[place : place + 27]
        table = data[place + 27 : place + 27 + header[26]] if len(header) == 27 else b""
        end = place + 27 + len(table) + sum(table)
        if len(header) < 27 or len(table) < header[26] or end > len(data):
            return "its last page is incomplete"
        if ended and header[5] & _FIRST_PAGE:
            return f"a second stream begins at byte {place}, of which nothing would be read"
        place, ended = end, bool(header[5] & _LAST_PAGE)
    if not ended and place < len(data):
        return f"no page begins at byte {place} of {len(data)}, where one should"
    return None if ended else "its last page does not end the stream"


def _count_frames(data: mmap.mmap, place: int) -> tuple[int, str | None]:
    """The samples of an MP3's frames, past tags between them; and what is there of a cut one."""
    samples = 0
    while True:
        frame = _mp3_frame(data[place : place + 4])
        if frame is None:
            after = _after_tags(data, place)
            if after == place:
                return samples, None
            place = after
            continue
        length, count = frame
        if place + length > len(data):
            return samples, f"{len(data) - place} of its {length} bytes are there"
        place, samples = place + length, samples + count


def _after_tags(data: mmap.mmap, place: int) -> int:
    """Where what is no tag begins: behind ID3 of both kinds and APE."""
    while True:
        head = data[place : place + 16]
        if head[:3] == b"ID3" and len(head) >= 10:  # its size is written in 7 bits a byte
            place += 10 + sum(byte << (7 * i) for i, byte in enumerate(reversed(head[6:10])))
        elif head[:3] == b"TAG":
            place += 128
        elif head[:8] == b"APETAGEX" and len(head) == 16:
            place += 32 + struct.unpack("<I", head[12:])[0]
        else:
            return place


def _xing(frame: bytes) -> tuple[int | None, int | None]:
    """Frames and bytes that an MP3's header promises; it stands in the first frame.

    The bytes count from that frame's start, the frames leave it out.
    """
    if _mp3_frame(frame[:4]) is None:
        return None, None
    newest, mono = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    place = 4 + ((17 if mono else 32) if newest else (9 if mono else 17))
    header = frame[place : place + 16]
    if header[:4] not in (b"Xing", b"Info") or len(header) < 16:
        return None, None
    values = iter(struct.unpack(">II", header[8:]))
    return tuple(next(values) if header[7] & flag else None for flag in (1, 2))


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
