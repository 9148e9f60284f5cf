"""Metadata of many tracks, kept as compressed text: as mappings they take a kilobyte a track."""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int

_TOGETHER = 64  # mappings that are compressed together


class Compressed(Sequence[Mapping[str, Any]]):
    """Mappings that JSON keeps, each decoded when it is asked for; none can be changed.

    One after the other they cost no more than their JSON; in another order each costs that of 64,
    so that `taken` should put them in order first.
    """

    def __init__(self, blocks: Sequence[bytes], length: int) -> None:
        """Made by `compress`."""
        self._blocks, self._length = tuple(blocks), length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, at: Any) -> Any:
        """The mapping at a position, or for a slice some of them.

        Raises:
            IndexError: there is no such mapping.
        """
        if isinstance(at, slice):
            return self.taken(np.arange(self._length)[at])
        at = range(self._length)[at]
        return json.loads(_texts(self._blocks[at // _TOGETHER])[at % _TOGETHER])

    def taken(self, rows: Int[np.ndarray, " m"]) -> "Compressed":
        """Those at some positions, in that order."""
        found = [""] * len(rows)
        for i in np.argsort(rows, kind="stable"):  # block by block
            found[i] = _texts(self._blocks[rows[i] // _TOGETHER])[rows[i] % _TOGETHER]
        return _compressed(found)


def compress(mappings: Iterable[Mapping[str, Any]]) -> Compressed:
    """Mappings with strings as keys and values that JSON keeps, in their order."""
    return _compressed(json.dumps(mapping) for mapping in mappings)  # holds no line break


def taken(
    mappings: Sequence[Mapping[str, Any]], rows: Int[np.ndarray, " m"]
) -> Sequence[Mapping[str, Any]]:
    """Those at some positions, in that order; what is compressed stays so."""
    if isinstance(mappings, Compressed):
        return mappings.taken(rows)
    return tuple(mappings[i] for i in rows)


def _compressed(texts: Iterable[str]) -> Compressed:
    blocks, some, length = [], [], 0
    for text in texts:
        some.append(text)
        length += 1
        if len(some) == _TOGETHER:
            blocks.append(_block(some))
            some = []
    return Compressed([*blocks, _block(some)], length)


def _block(texts: Sequence[str]) -> bytes:
    return zlib.compress("\n".join(texts).encode("utf-8"))


@lru_cache(maxsize=2)
def _texts(block: bytes) -> list[str]:
    return zlib.decompress(block).decode("utf-8").split("\n")
