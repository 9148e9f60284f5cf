"""Which files the demo corpus has: versions crossed with captions, formats and splits.

Nothing that stands in a file's name, its metadata or its format tells which work it is of:

- Each version of a work is described under another of six aspects, so that no two have one
  caption, while a caption stands on works of several artists: of some draws, the one is taken where
  the fewest captions keep to one or two. Over every six works in turn, each aspect meets each kind
  of version once.
- Formats, sample rates and channels are dealt out over all files alike.
- Two of six versions of each work are held out: shuffled kinds are dealt out, so that each kind is
  held out equally often. Then works, two at a time and at random, change their hands wherever the
  held-out files are no less evenly spread over lengths, formats, rates, channels, aspects and
  captions after it (such designs and their analysis: Morgan and Rubin 2012, on rerandomisation).
- One file in five is shorter than a window, of every kind alike.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from tda_jax.demo.composition import Work, compose
from tda_jax.demo.styles import STYLES
from tda_jax.demo.versions import ASPECTS, KINDS, SHORT, Version, caption, versions_of
from tda_jax.errors import InputError
from tda_jax.named_draws import generator

FORMATS = {  # suffix: containers and encodings of libsndfile
    "wav": (("WAV", "PCM_16"), ("WAV", "PCM_24")),
    "flac": (("FLAC", "PCM_16"), ("FLAC", "PCM_24")),
    "ogg": (("OGG", "VORBIS"),),
    "mp3": (("MP3", "MPEG_LAYER_III"),),
}
RATES = (16000, 22050, 32000, 44100, 48000)
HELD_OUT = 2  # versions of each work that no model is trained on
_EDITION = "demo music 1"  # to be counted up when the same design would sound otherwise
_SHORT_SHARE = 5  # one file in so many is shorter than a window
_SWAPS, _TRIES = 4000, 50  # to spread the held-out files, and the captions
_ADJECTIVES = (
    "Amber Brittle Copper Distant Early Faded Gentle Hollow Ivory Jagged Kind Late Mild Narrow "
    "Open Pale Quiet Restless Silver Tender Unlit Velvet Wandering Young"
)
_NOUNS = (
    "Arbour Bridge Causeway Door Ember Ferry Garden Harbour Island Junction Kite Ladder Meadow "
    "North Orchard Parade Quarry River Stair Tide Umbrella Valley Window Yard"
)
_MOST = 96  # works, for which there are titles enough


class Item(NamedTuple):
    """One file of the corpus.

    Attributes:
        id: neutral, of twelve hexadecimal digits.
        work: the name of its work.
        artist: of the work.
        title: of its own, which tells nothing.
        caption: true of it.
        aspect: under which it is described.
        held_out: whether it is a decoy.
        suffix: of the file.
        encoding: container and encoding, as libsndfile names them.
        rate: samples a second.
        channels: 1 or 2.
        version: how it is played.
    """

    id: str
    work: str
    artist: str
    title: str
    caption: str
    aspect: str
    held_out: bool
    suffix: str
    encoding: tuple[str, str]
    rate: int
    channels: int
    version: Version

    @property
    def file_name(self) -> str:
        """Of its file."""
        return f"{self.id}.{self.suffix}"


def refuse_works(works: int) -> None:
    """Refuses a number of works that no corpus can have.

    Raises:
        InputError: names it.
    """
    if not len(STYLES) <= works <= _MOST:
        raise InputError(f"works = {works}; give {len(STYLES)} to {_MOST}")


def works_of(seed: int, works: int) -> tuple[Work, ...]:
    """The works, artist by artist in turn.

    Raises:
        InputError: there are fewer than 6, one of each artist, or more than 96, for which there
            would not be titles enough.
    """
    refuse_works(works)
    count = len(STYLES)
    return tuple(compose(seed, i, STYLES[i % count], i // count) for i in range(works))


def design(seed: int, works: int = 24) -> tuple[Item, ...]:
    """The files of a corpus, six for each work, work by work.

    Raises:
        InputError: see `works_of`.
    """
    short = _short(seed, works)
    written = works_of(seed, works)
    played = [
        (work, version)
        for work, brief in zip(written, short, strict=True)
        for version in versions_of(work, seed, brief)
    ]
    dealt = {
        "suffix": _dealt(seed, "formats", tuple(FORMATS), len(played)),
        "rate": _dealt(seed, "rates", RATES, len(played)),
        "channels": _dealt(seed, "channels", (1, 2), len(played)),
        "aspect": _aspects(seed, played),
        "title": _titles(seed, len(played)),
    }
    rows = [dict(zip(dealt, row, strict=True)) for row in zip(*dealt.values(), strict=True)]
    items = [
        _item(number, work, version, row)
        for number, ((work, version), row) in enumerate(zip(played, rows, strict=True))
    ]
    held = _held_out(seed, items)
    items = [item._replace(held_out=bool(out)) for item, out in zip(items, held, strict=True)]
    return tuple(item._replace(id=_id(seed, item)) for item in items)


def is_short(item: Item) -> bool:
    """Whether a file is shorter than a window."""
    return item.version.seconds <= SHORT[1]


def _item(number: int, work: Work, version: Version, row: Mapping[str, Any]) -> Item:
    """A file but for its id, and whether it is held out."""
    encodings = FORMATS[row["suffix"]]
    return Item(
        id="",
        work=work.name,
        artist=work.artist,
        caption=caption(work, version, row["aspect"]),
        held_out=False,
        encoding=encodings[number % len(encodings)],
        version=version,
        **row,
    )


def _id(seed: int, item: Item) -> str:
    """Of all that decides the file, so that a file that is there is the one that is wanted."""
    return hashlib.sha256(f"{_EDITION} {seed} {item}".encode()).hexdigest()[:12]


def _titles(seed: int, count: int) -> list[str]:
    """Two words each, no two alike."""
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    order = generator(seed, "demo titles").permutation(len(adjectives) * len(nouns))[:count]
    return [f"{adjectives[n // len(nouns)]} {nouns[n % len(nouns)]}" for n in order]


def _dealt(seed: int, name: str, values: Sequence, count: int) -> list:
    """`count` values in random order, each as often as the others, to one."""
    order = generator(seed, f"demo {name}").permutation(count)
    return [values[int(place) % len(values)] for place in order]


def _short(seed: int, works: int) -> list[frozenset[str]]:
    """For each work, which of its versions are short: one file in five, of every kind alike."""
    wanted = round(works * len(KINDS) / _SHORT_SHARE)
    originals = round(works / _SHORT_SHARE)  # each of them makes the re-encoded one short too
    kinds = {"original": originals}
    others = [kind for kind in KINDS if kind not in ("original", "reencoded")]
    for i, kind in enumerate(others):
        kinds[kind] = (wanted - 2 * originals + i) // len(others)
    chosen: dict[int, set[str]] = defaultdict(set)
    for kind, count in kinds.items():
        for work in generator(seed, f"demo short {kind}").permutation(works)[:count]:
            chosen[int(work)].add(kind)
    return [frozenset(chosen[work]) for work in range(works)]


def _aspects(seed: int, played: Sequence[tuple[Work, Version]]) -> list[str]:
    """The aspect of each version: of some draws, one that spreads captions over most artists."""
    said = [[caption(work, version, aspect) for aspect in ASPECTS] for work, version in played]

    def few(drawn: Sequence[int]) -> int:
        artists = defaultdict(Counter)
        for (work, _), texts, aspect in zip(played, said, drawn, strict=True):
            artists[texts[aspect]][work.artist] += 1
        return sum(max(0, 3 - len(found)) for found in artists.values())

    tries = (_squares(seed, attempt, len(played)) for attempt in range(_TRIES))
    return [ASPECTS[aspect] for aspect in min(tries, key=few)]


def _squares(seed: int, attempt: int, count: int) -> list[int]:
    """For each version the number of its aspect: Latin squares of six works, shuffled."""
    draws, size, drawn = generator(seed, f"demo aspects {attempt}"), len(KINDS), []
    while len(drawn) < count:
        down, across, names = (draws.permutation(size) for _ in range(3))
        drawn += [int(names[(d + a) % size]) for d in down for a in across]
    return drawn[:count]


def _held_out(seed: int, items: Sequence[Item]) -> Bool[np.ndarray, " n"]:
    """Who is held out: dealt at random, then spread by swaps between works."""
    draws = generator(seed, "demo held out")
    works = len(items) // len(KINDS)
    has = levels(items)
    held = _deal(draws, works)
    least = unevenness(held.reshape(-1), has)
    for one, other in draws.integers(0, works, (_SWAPS, 2)):
        held[[one, other]] = held[[other, one]]
        now = unevenness(held.reshape(-1), has)
        if now > least:
            held[[one, other]] = held[[other, one]]
        least = min(least, now)
    return held.reshape(-1)


def _deal(draws: np.random.Generator, works: int) -> Bool[np.ndarray, "works kinds"]:
    """Two kinds for each work; every three works hold out each kind once."""
    held = np.zeros((works, len(KINDS)), bool)
    per_round = len(KINDS) // HELD_OUT
    order = draws.permutation(works)
    for first in range(0, works, per_round):
        dealt = draws.permutation(len(KINDS)).reshape(per_round, HELD_OUT)
        for work, kinds in zip(order[first : first + per_round], dealt, strict=False):
            held[work, kinds] = True
    return held


def levels(items: Sequence[Item]) -> Float[np.ndarray, "n levels"]:
    """1 where a file has a level of what being held out must not go with, else 0."""
    named = [
        {
            f"short {is_short(item)}",
            f"suffix {item.suffix}",
            f"rate {item.rate}",
            f"channels {item.channels}",
            f"aspect {item.aspect}",
            f"caption {item.caption}",
            f"kind {item.version.kind}",
        }
        for item in items
    ]
    names = sorted(set().union(*named))
    return np.array([[name in has for name in names] for has in named], float)


def unevenness(held: Bool[np.ndarray, " n"], has: Float[np.ndarray, "n levels"]) -> float:
    """Chi-squared of who is held out against every level; 0 where all have the same share."""
    expected = held.mean() * has.sum(axis=0)
    return float((((held @ has) - expected) ** 2 / expected).sum())
