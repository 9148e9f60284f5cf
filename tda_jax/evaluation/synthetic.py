"""A corpus of latents whose relations are known: works crossed with captions, and decoys.

A track is the sum of three parts of known share, so that its variance is about 1:

    latent = 0.7 · its work, transformed  +  0.5 · its caption's texture  +  0.5 · its own detail

- The work is a pattern that is smooth in time and over bins. Each variant shifts it in time by up
  to one frame, mixes its channels a little and changes its gain: relatives are alike, not equal.
- The texture is the caption's own and rough, with a gain per track. Nothing else tells which
  texture comes, so a model that reads its text predicts better than one that does not.
- The detail is rough noise that no other track shares: what a model can only memorise.

Works and captions are crossed in full: among the members, each work has each caption equally
often. A caption tells nothing of the work, and who finds relatives cannot have read the caption.

Decoys are not trained on. They come from the same draw as the members: some are further variants
of the members' works, the others variants of works that no member shares. Their captions and
lengths are spread as those of the members. A decoy may share both work and caption with a query,
which a member never does where there are as many captions as variants: to compare equally similar
members and decoys, take relatives of other captions only.

Every part is a function of (seed, its name): more works or decoys change no other track, but for
which ones are short.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tda_jax.errors import InputError
from tda_jax.examples import Corpus, corpus_of
from tda_jax.keys import subset
from tda_jax.models.denoiser import Condition
from tda_jax.named_draws import generator

FRAMES, BINS, CHANNELS = 8, 8, 4
TOKENS, TEXT_DIM = 4, 16
SILENCE = -1.0  # every element of a frame of padding
_WORK, _TEXTURE, _DETAIL = 0.7, 0.5, 0.5
_SHORT = 5  # one track in five is shorter than the window


class _Track(NamedTuple):
    work: str
    caption: int
    split: str
    number: int

    @property
    def id(self) -> str:
        return f"{self.work}-{'v' if self.split == 'member' else 'h'}{self.number:02d}"


def synthetic_corpus(
    seed: int,
    works: int = 16,
    variants: int | Sequence[int] = 8,
    captions: int = 8,
    held_out: int = 2,
    unseen_works: int = 4,
) -> Corpus:
    """Makes the corpus.

    Args:
        seed: of every random part.
        works: how many works the members come from.
        variants: members of each work, one number for all or one for each.
        captions: how many captions there are; it divides `variants`.
        held_out: decoys of each work of the members.
        unseen_works: works that only decoys come from, `held_out` of each.

    Returns:
        works · variants members, or as many as the variants sum to, and (works + unseen_works) ·
        held_out decoys: latents (n, 8, 8, 4) and a `Condition` of text (n, 4, 16), both float32,
        and text_mask (n, 4); masks with 0 over padding, which holds `SILENCE`. The metadata of a
        track are its work, caption and split ("member", "held_out" or "unseen").

    Raises:
        InputError: a count is out of range, or the captions cannot be crossed with the works.
    """
    sizes = _sizes(works, variants)
    _refuse(works, sizes, captions, held_out, unseen_works)
    members = list(_members(sizes, captions))
    decoys = list(_decoys(works, held_out, unseen_works, captions))
    tracks = members + decoys
    parts = (("members", members), ("decoys", decoys))
    lengths = np.concatenate([_lengths(seed, name, len(part)) for name, part in parts])
    masks = np.arange(FRAMES)[None] < lengths[:, None]
    latents = np.stack([_latent(seed, track) for track in tracks])
    latents = np.where(masks[:, :, None, None], latents, SILENCE).astype(np.float32)
    texts, text_masks = zip(*(_text(seed, track.caption) for track in tracks), strict=True)
    return corpus_of(
        [track.id for track in tracks],
        latents,
        Condition(text=np.stack(texts), text_mask=np.stack(text_masks)),
        masks,
        np.array([track.split == "member" for track in tracks]),
        [{"work": t.work, "caption": f"caption{t.caption:02d}", "split": t.split} for t in tracks],
    )


def mates(corpus: Corpus, track_id: str, factor: str) -> Bool[np.ndarray, " n"]:
    """Which tracks share a track's work or caption, the track itself left out.

    Args:
        corpus: as `synthetic_corpus` made it.
        track_id: the track.
        factor: "work" or "caption", or another key of the metadata.

    Raises:
        InputError: the corpus has no such track, or its metadata no such factor.
    """
    if track_id not in corpus.ids:
        raise InputError(
            f"the corpus has no track {track_id!r}; its ids look like {corpus.ids[0]!r}"
        )
    row = corpus.ids.index(track_id)
    if factor not in corpus.metadata[row]:
        raise InputError(
            f"the metadata have no {factor!r}; choose one of {list(corpus.metadata[row])}"
        )
    value = corpus.metadata[row][factor]
    same = np.array([entry.get(factor) == value for entry in corpus.metadata])
    same[row] = False
    return same


def query_ids(corpus: Corpus, count: int, seed: int) -> list[str]:
    """Members to be queries: a random one of each work in turn, so that works stand evenly.

    Raises:
        InputError: `count` is not in 1 .. number of members.
    """
    members = int(corpus.members.sum())
    if not 1 <= count <= members:
        raise InputError(f"{count} queries of {members} members; ask for 1 to {members}")
    by_work: dict[str, list[str]] = {}
    for i in np.flatnonzero(corpus.members):
        by_work.setdefault(corpus.metadata[i]["work"], []).append(corpus.ids[i])
    order = subset(list(by_work), len(by_work), seed)
    shuffled = [subset(by_work[work], len(by_work[work]), seed) for work in order]
    rounds = max(len(ids) for ids in shuffled)
    return [ids[r] for r in range(rounds) for ids in shuffled if r < len(ids)][:count]


def _sizes(works: int, variants: int | Sequence[int]) -> tuple[int, ...]:
    """How many members each work has."""
    if isinstance(variants, int):
        return (variants,) * works
    if len(variants) != works:
        raise InputError(f"{len(variants)} numbers of variants for {works} works; give one each")
    return tuple(variants)


def _members(sizes: Sequence[int], captions: int) -> Iterator[_Track]:
    for w, variants in enumerate(sizes):
        for v in range(variants):
            yield _Track(f"work{w:02d}", v % captions, "member", v)


def _decoys(works: int, held_out: int, unseen_works: int, captions: int) -> Iterator[_Track]:
    """Captions are dealt in turn, so that in either split each comes equally often."""
    for name, split, count in (("work", "held_out", works), ("unseen", "unseen", unseen_works)):
        for d in range(held_out * count):
            yield _Track(f"{name}{d // held_out:02d}", d % captions, split, d % held_out)


def _lengths(seed: int, name: str, count: int) -> np.ndarray:
    """Valid frames: one track in five, taken at random, has FRAMES // 2 .. FRAMES - 1 in turn."""
    short = generator(seed, f"short {name}").permutation(count)[: count // _SHORT]
    lengths = np.full(count, FRAMES)
    lengths[short] = FRAMES // 2 + np.arange(len(short)) % (FRAMES - FRAMES // 2)
    return lengths


def _latent(seed: int, track: _Track) -> Float[np.ndarray, "frames bins channels"]:
    own = track.id
    gain = np.exp(0.15 * _normal(seed, f"gain {own}", (2,)))
    shift = generator(seed, f"shift {own}").integers(-1, 2)
    mix = np.eye(CHANNELS) + 0.2 * _normal(seed, f"mix {own}", (CHANNELS, CHANNELS))
    mix /= np.linalg.norm(mix, axis=0)  # each channel keeps its variance
    work = np.roll(_smooth(_normal(seed, f"work {track.work}", (FRAMES, BINS, CHANNELS))), shift, 0)
    texture = _normal(seed, f"texture {track.caption}", (FRAMES, BINS, CHANNELS))
    detail = _normal(seed, f"detail {own}", (FRAMES, BINS, CHANNELS))
    return _WORK * gain[0] * (work @ mix) + _TEXTURE * gain[1] * texture + _DETAIL * detail


def _text(seed: int, caption: int) -> tuple[np.ndarray, np.ndarray]:
    """Two to four words of a caption, each a random vector of its own; zeros after them."""
    words = _normal(seed, f"words {caption}", (TOKENS, TEXT_DIM)).astype(np.float32)
    mask = np.arange(TOKENS) < 2 + caption % (TOKENS - 1)
    return words * mask[:, None].astype(np.float32), mask


def _smooth(noise: np.ndarray) -> np.ndarray:
    """Keeps the two lowest frequencies of the first two axes; scales each channel to variance 1."""
    spectrum = np.fft.fft2(noise, axes=(0, 1))
    low = [np.abs(np.fft.fftfreq(size, 1 / size)) <= 1 for size in noise.shape[:2]]
    kept = spectrum * (low[0][:, None] & low[1][None])[:, :, None]
    kept[0, 0] = 0.0  # no offset: every work has mean 0
    pattern = np.fft.ifft2(kept, axes=(0, 1)).real
    return pattern / pattern.std((0, 1))


def _normal(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    return generator(seed, name).standard_normal(shape)


def _refuse(
    works: int, sizes: Sequence[int], captions: int, held_out: int, unseen_works: int
) -> None:
    counts = {"works": works, "variants": min(sizes, default=1), "captions": captions}
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} = {count}; give at least 1")
    for name, count in (("held_out", held_out), ("unseen_works", unseen_works)):
        if count < 0:
            raise InputError(f"{name} = {count}; give 0 or more")
    for variants in sizes:
        if variants % captions:
            raise InputError(
                f"{captions} captions do not cross with {variants} variants of each work; let the "
                "number of captions divide that of variants"
            )
