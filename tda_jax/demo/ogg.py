"""Ogg files that are the same bytes whenever they are written.

An encoder draws the serial number of a stream at random; here it is set, and the checksum of each
page made anew (RFC 3533, section 6).
"""

import struct
import zlib

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_HEADER = 27  # bytes of a page before its table of segments
_SERIAL, _CHECKSUM = 14, 22  # where they stand in it


def with_serial(data: bytes, serial: int) -> bytes:
    """An Ogg file of one stream with another serial number.

    Args:
        data: whole pages, one after another.
        serial: 0 .. 2^32 - 1.
    """
    pages, start = [], 0
    while start < len(data):
        count = data[start + _HEADER - 1]
        end = start + _HEADER + count + sum(data[start + _HEADER : start + _HEADER + count])
        page = bytearray(data[start:end])
        struct.pack_into("<I", page, _SERIAL, serial)
        struct.pack_into("<I", page, _CHECKSUM, 0)
        struct.pack_into("<I", page, _CHECKSUM, checksum(bytes(page)))
        pages.append(bytes(page))
        start = end
    return b"".join(pages)


def checksum(page: bytes) -> int:
    """The CRC of a page whose own is 0: of the polynomial 0x04c11db7, highest bit first, from 0.

    zlib's is of the same polynomial, lowest bit first, from and to its complement.
    """
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
