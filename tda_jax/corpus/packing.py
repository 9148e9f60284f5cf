"""From encoded windows and captions to the rows of a dataset."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from tda_jax.corpus.dataset import Row
from tda_jax.corpus.encoding import Encoded
from tda_jax.corpus.folder import Track
from tda_jax.models.denoiser import Condition
from tda_jax.models.vae_config import VAEConfig

Conditions = Callable[[Sequence[str]], Condition]
"""conditions(captions) -> the model's condition for each, with a leading axis."""


class Packed(NamedTuple):
    """The rows of a corpus, in the order of its tracks and of their windows.

    Attributes:
        rows: windows.
        skipped: id -> why nothing of that track is there.
    """

    rows: list[Row]
    skipped: dict[str, str]


def pack(
    chunks: Iterable[Encoded], tracks: Sequence[Track], vae: VAEConfig, conditions: Conditions
) -> Packed:
    """Rows in the network's scaling, each with the conditions of its track's captions.

    Args:
        chunks: from `encoding.encode`, of the files of `tracks`.
        tracks: what the folder says of them.
        vae: its scaling: a latent is scaling_factor · (z - shift_factor).
        conditions: of captions; called once, with every caption that stands anywhere.
    """
    known = {track.id: track for track in tracks}
    texts = sorted({text for track in tracks for text in track.captions})
    place = {text: i for i, text in enumerate(texts)}
    made = conditions(texts)
    rows, skipped = [], {}
    for chunk in chunks:
        skipped |= chunk.skipped
        several = {name for name in chunk.id if chunk.id.count(name) > 1}
        for i, name in enumerate(chunk.id):
            track, start = known[name], float(chunk.start[i])
            which = np.array([place[text] for text in track.captions])
            rows.append(
                Row(
                    f"{name} at {start:g} s" if name in several else name,
                    name,
                    track.member,
                    start,
                    np.float32(vae.scaling_factor) * (chunk.mean[i] - np.float32(vae.shift_factor)),
                    np.float32(vae.scaling_factor) * chunk.std[i],
                    chunk.log_mel[i],
                    int(chunk.frames[i]),
                    track.captions,
                    jax.tree.map(lambda x, which=which: x[which], made),
                    _carried(track),
                )
            )
    return Packed(rows, skipped)


def _carried(track: Track) -> Mapping[str, Any]:
    named = {"title": track.title, "artist": track.artist, "file_name": track.file_name}
    return {**track.carried, **{k: v for k, v in named.items() if v is not None}}
