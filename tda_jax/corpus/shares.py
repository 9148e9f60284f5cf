"""What each of several processes has encoded, told to the one that makes the dataset of it.

Else that one would have to read every file again, to know by its contents which chunk it is in.

    CHUNKS/share-INDEX.json   the chunks of process INDEX, in order
"""

import json
from pathlib import Path

from tda_jax.artifact import whole_file
from tda_jax.corpus.chunking import Chunk
from tda_jax.hosts import Hosts


def tell(folder: Path, among: Hosts, chunks: list[Chunk]) -> None:
    """Writes this process's share.

    Args:
        folder: of the chunks, which all processes see.
        among: this process.
        chunks: that it has encoded, or found there.

    Raises:
        InputError: the disk refuses.
    """
    said = [[c.path.name, c.made_of, c.ids, c.unread] for c in chunks]
    with whole_file(_path(folder, among.index)) as part:
        part.write_text(json.dumps(said) + "\n", encoding="utf-8")


def told(folder: Path, among: Hosts) -> list[Chunk]:
    """The chunks of all processes in order, once each has told its share; the files then go."""
    paths = [_path(folder, i) for i in range(among.count)]
    each = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    for path in paths:
        path.unlink()
    return [
        Chunk(folder / name, made_of, tuple(ids), unread)
        for share in each
        for name, made_of, ids, unread in share
    ]


def _path(folder: Path, index: int) -> Path:
    return folder / f"share-{index:05d}.json"
