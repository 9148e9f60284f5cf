"""What a container says of its own length, so that a file that was cut off is not taken for whole.

Decoders are kind to files that were cut off: they play what is there. These containers say enough
to tell, and this module reads that much of them:

- WAV, RF64, W64, AIFF and AU: the size of the samples, against the size of the file. What follows
  the samples of a WAV must be a chunk too, or a tag, and not more samples. No tag may stand before
  the header: libsndfile then leaves out as many bytes at the end.
- Ogg (Vorbis, Opus, FLAC): one page must follow the other, the last must carry the mark "end of
  stream", and no stream may begin after it, of which decoders would play nothing.
- MP3: a Xing or Info header says how many bytes and frames there are. The frames are counted too:
  decoders stop early where a second file was put behind the first, or where, without a header, the
  first frame's bit rate lets them guess too few; and they pass over what is no frame.

Written from the formats' public descriptions: RIFF and RF64 (EBU Tech 3306), W64 (Sony 2003), AIFF
(Apple 1989), AU (Sun 1992), Ogg (RFC 3533), ISO 11172-3 and 13818-3 (MPEG audio frames), Xing's VBR
header, ID3 and APE tags.
"""

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

_PLACEHOLDER = 0x7FFF0000  # from here on a 32-bit size is what a pipe writes for "not known"
_WAVE64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")  # of Sony's chunk "riff"
_WAVE64_CHUNK = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # behind the four letters of a chunk
_FIRST_PAGE, _LAST_PAGE = 0x02, 0x04
# Samples that decoders rightly drop of an MP3: lead-in and padding that no header gives.
_MP3_SLACK = 3 * 1152
_RESUMED = 4  # frames in a row that are no coincidence
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
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _after_tags(data, 0)
        magic = data[start : start + 16]
        if start and magic[:4] in (b"RIFF", b"RF64", b"RIFX", b"FORM", b"riff", b".snd"):
            return f"a tag of {start} bytes stands before its header, for which its end would miss"
        if magic[:4] in (b"RIFF", b"RF64", b"RIFX") and magic[8:12] == b"WAVE":
            order = ">" if magic[:4] == b"RIFX" else "<"
            return _short_chunk(data, start + 12, b"data", order)
        if magic[:4] == b"FORM" and magic[8:12] in (b"AIFF", b"AIFC"):
            return _short_chunk(data, start + 12, b"SSND", ">")
        if magic == _WAVE64:
            return _short_wave64(data, start + 40)
        if magic[:4] == b".snd":
            skipped, length = struct.unpack(">II", magic[4:12])
            there = len(data) - start - skipped
            return _short(there, length) if length < _PLACEHOLDER else None
        return _open_end(data, start) if magic[:4] == b"OggS" else None


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
        header = _xing(data[place : place + 200])
        if len(data) - place < header.bytes:
            return f"{len(data) - place} of {header.bytes} bytes are there"
        samples, cause = _count_frames(data, place)
    if cause and not header.bytes:
        return cause
    samples = max(samples - header.own, header.samples) - header.silent
    short = decoded < samples - _MP3_SLACK
    return f"{decoded} of {samples} samples could be decoded" if short else None


def _short_chunk(data: mmap.mmap, place: int, wanted: bytes, order: str) -> str | None:
    long_size = None  # RF64 keeps the size of its samples in a chunk of its own
    while len(head := data[place : place + 8]) == 8:
        name, length = head[:4], struct.unpack(f"{order}I", head[4:])[0]
        place += 8
        if name == b"ds64" and length >= 16:
            long_size = struct.unpack("<Q", data[place + 8 : place + 16])[0]
        if name == wanted:
            known = long_size is not None or 0 < length < _PLACEHOLDER
            length = long_size if long_size is not None else length
            short = _short(len(data) - place, length) or _stray(data, place, length)
            return short if known else None
        place += length + length % 2
    return f"it has no {wanted.decode()} chunk, where samples would be"


def _stray(data: mmap.mmap, place: int, length: int) -> str | None:
    """What stands behind a chunk of samples, if it is neither a chunk nor a tag nor zeros."""
    end = place + length
    # A chunk of odd length has a byte of padding behind it, which some programs leave out.
    names = [data[at : at + 4] for at in {end, end + length % 2}]
    named = any(
        name[:3] in (b"TAG", b"ID3") or all(32 <= letter < 127 for letter in name) for name in names
    )
    if named or not any(data[end : end + 9]):
        return None
    return f"{len(data) - end} bytes follow the {length} bytes of samples, and are no chunk"


def _short_wave64(data: mmap.mmap, place: int) -> str | None:
    while len(head := data[place : place + 24]) == 24:
        length = struct.unpack("<Q", head[16:])[0]  # with its head
        if head[:16] == b"data" + _WAVE64_CHUNK:
            return _short(len(data) - place - 24, length - 24) if length < 1 << 62 else None
        if length < 24:
            break
        place += length + -length % 8
    return "it has no data chunk, where samples would be"


def _short(there: int, length: int) -> str | None:
    return f"{there} of {length} bytes of samples are there" if there < length else None


def _open_end(data: mmap.mmap, place: int) -> str | None:
    """What is wrong with the end of an Ogg file, or with a page on the way to it."""
    streams: dict[int, int] = {}  # those that have not ended: serial number -> their next page
    ended = False
    while data[place : place + 4] == b"OggS":
        header = data[place : place + 27]
        table = data[place + 27 : place + 27 + header[26]] if len(header) == 27 else b""
        end = place + 27 + len(table) + sum(table)
        if len(header) < 27 or len(table) < header[26] or end > len(data):
            return "its last page is incomplete"
        flags, (serial, number) = header[5], struct.unpack("<II", header[14:22])
        if flags & _FIRST_PAGE and ended:
            return f"a second stream begins at byte {place}, of which nothing would be read"
        if not flags & _FIRST_PAGE and streams.get(serial) != number:
            return f"a page is missing before byte {place}"
        streams[serial] = number + 1
        if flags & _LAST_PAGE:
            del streams[serial]
            ended = True
        place = end
    if streams and place < len(data):
        return f"no page begins at byte {place} of {len(data)}, where one should"
    return "its last page does not end the stream" if streams else None


def _count_frames(data: mmap.mmap, place: int) -> tuple[int, str | None]:
    """The samples of an MP3's frames, past tags between them; and what is wrong after those."""
    samples = 0
    while frame := _mp3_frame(data, place):
        length, count = frame
        if place + length > len(data):
            there = len(data) - place
            return samples, f"its last frame is incomplete, {there} of {length} bytes are there"
        place, samples = _after_tags(data, place + length), samples + count
    resumed = _resumes(data, place)
    return samples, f"no frame begins at byte {place}, but at {resumed} again" if resumed else None


def _resumes(data: mmap.mmap, place: int) -> int | None:
    """Where, behind what is no frame, frames follow each other again."""
    while (place := data.find(b"\xff", place + 1)) >= 0:
        at = place
        for _ in range(_RESUMED):
            frame = _mp3_frame(data, at)
            if frame is None:
                break
            at += frame[0]
        else:
            return place
    return None


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


class _Header(NamedTuple):
    """What an MP3's first frame says of the others; zeros where it does not."""

    own: int = 0  # samples of the frame it stands in, which has no sound
    samples: int = 0  # of the others
    bytes: int = 0  # of all
    silent: int = 0  # samples that decoders drop


def _xing(frame: bytes) -> _Header:
    found = _mp3_frame(frame, 0)
    if found is None:
        return _Header()
    newest, mono = frame[1] >> 3 & 3 == 3, frame[3] >> 6 == 3
    place = 4 + ((17 if mono else 32) if newest else (9 if mono else 17))
    if frame[place : place + 4] not in (b"Xing", b"Info") or len(frame) < place + 144:
        return _Header()
    flags, place, values = frame[place + 7], place + 8, []
    for flag, length in ((1, 4), (2, 4), (4, 100), (8, 4)):  # frames, bytes, a table, a quality
        there = length if flags & flag else 0
        values.append(int.from_bytes(frame[place : place + there], "big"))
        place += there
    # LAME's part: its name and settings, then the lead-in and the padding in 12 bits each.
    ends = int.from_bytes(frame[place + 21 : place + 24], "big") if any(frame[place:][:4]) else 0
    return _Header(found[1], values[0] * found[1], values[1], (ends >> 12) + (ends & 0xFFF))


def _mp3_frame(data: bytes | mmap.mmap, place: int) -> tuple[int, int] | None:
    """Bytes and samples of the layer III frame at a place; None where there is none."""
    head = data[place : place + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, rate, kbits = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if version not in _RATES or rate == 3 or not 1 <= kbits <= 14:
        return None
    samples = 1152 if version == 3 else 576
    bits = 1000 * _KBITS[1 if version == 3 else 2][kbits - 1]
    length = samples // 8 * bits // _RATES[version][rate] + (head[2] >> 1 & 1)
    return length, samples
