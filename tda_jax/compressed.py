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
    """Mappings that JSON keeps, each decoded when it is asked for; none can be changed."""

    def __init__(self, blocks: Sequence[bytes], places: Int[np.ndarray, " n"]) -> None:
        """Made by `compress`."""
        self._blocks, self._places = tuple(blocks), places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: Any) -> Any:
        """The mapping at a position, or for a slice some of them.

        Raises:
            IndexError: there is no such mapping.
        """
        places = self._places[at]
        if isinstance(at, slice):
            return Compressed(self._blocks, places)
        return json.loads(_texts(self._blocks[places // _TOGETHER])[places % _TOGETHER])

    def taken(self, rows: Int[np.ndarray, " m"]) -> "Compressed":
        """Those at some positions, in that order."""
        return Compressed(self._blocks, self._places[rows])


def compress(mappings: Iterable[Mapping[str, Any]]) -> Compressed:
    """Mappings with strings as keys and values that JSON keeps, in their order."""
    blocks, texts, n = [], [], 0
    for mapping in mappings:
        texts.append(json.dumps(mapping))  # holds no line break
        n += 1
        if len(texts) == _TOGETHER:
            blocks.append(_block(texts))
            texts = []
    return Compressed([*blocks, _block(texts)], np.arange(n))


def taken(
    mappings: Sequence[Mapping[str, Any]], rows: Int[np.ndarray, " m"]
) -> Sequence[Mapping[str, Any]]:
    """Those at some positions, in that order; what is compressed stays so."""
    if isinstance(mappings, Compressed):
        return mappings.taken(rows)
    return tuple(mappings[i] for i in rows)


def _block(texts: Sequence[str]) -> bytes:
    return zlib.compress("\n".join(texts).encode("utf-8"))


@lru_cache(maxsize=2)
def _texts(block: bytes) -> list[str]:
    return zlib.decompress(block).decode("utf-8").split("\n")
