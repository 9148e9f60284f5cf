"""How a query's scores treat its relatives, its caption-mates, and decoys as like it as members.

Works and captions are crossed, so each set shares one thing with the query and not the other. The
query itself is in no set.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from tda_jax.evaluation.ranking import auc, ranks
from tda_jax.evaluation.synthetic import mates
from tda_jax.examples import Corpus


class Relations(NamedTuple):
    """What the tracks of a corpus are to a query: (n,) each.

    Attributes:
        query: the query itself.
        members: trained on.
        relatives: members of its work under other captions.
        other_works: members of other works.
        captions: members of other works under its caption.
        neither: members of other works under other captions.
        decoy_relatives: decoys of its work under other captions.
        decoy_neither: decoys of other works under other captions.
        likeness: latent similarity to the query, by which members and decoys are matched.
    """

    query: Bool[np.ndarray, " n"]
    members: Bool[np.ndarray, " n"]
    relatives: Bool[np.ndarray, " n"]
    other_works: Bool[np.ndarray, " n"]
    captions: Bool[np.ndarray, " n"]
    neither: Bool[np.ndarray, " n"]
    decoy_relatives: Bool[np.ndarray, " n"]
    decoy_neither: Bool[np.ndarray, " n"]
    likeness: Float64[np.ndarray, " n"]


def relations(corpus: Corpus, query: str, likeness: Float[np.ndarray, " n"]) -> Relations:
    """The relations of a track of the corpus to the others.

    Args:
        corpus: with `work` and `caption` in its metadata.
        query: the id of a member.
        likeness: of each track to the query.
    """
    itself = np.array([name == query for name in corpus.ids])
    work, caption = (mates(corpus, query, factor) for factor in ("work", "caption"))
    return related(itself, corpus.members, work, caption, likeness)


def related(
    itself: Bool[np.ndarray, " n"],
    members: Bool[np.ndarray, " n"],
    work: Bool[np.ndarray, " n"],
    caption: Bool[np.ndarray, " n"],
    likeness: Float[np.ndarray, " n"],
) -> Relations:
    """The relations of a query to tracks, from what they share with it.

    Args:
        itself: the query.
        members: trained on.
        work: of the query's work; what it says of the query itself does not count.
        caption: under the query's caption; likewise.
        likeness: of each track to the query.
    """
    others = members & ~itself
    decoys = ~members & ~itself
    return Relations(
        itself,
        members,
        others & work & ~caption,
        others & ~work,
        others & caption & ~work,
        others & ~work & ~caption,
        decoys & work & ~caption,
        decoys & ~work & ~caption,
        likeness.astype(np.float64),
    )


def matched_auc(
    scores: Float[np.ndarray, " n"],
    better: Bool[np.ndarray, " n"],
    worse: Bool[np.ndarray, " n"],
    factor: Float[np.ndarray, " n"],
    caliper: float,
) -> float:
    """How often a track of one set is above one of the other that is as high in a factor.

    `ranking.auc` over the pairs whose factors differ by `caliper` at most; the factor itself is
    then near 0.5. Nan where there is no such pair.
    """
    rows = [np.flatnonzero(part & ~np.isnan(scores + factor)) for part in (better, worse)]
    x, y = scores[rows[0]][:, None], scores[rows[1]][None]
    near = np.abs(factor[rows[0]][:, None] - factor[rows[1]][None]) <= caliper
    if not near.any():
        return float("nan")
    return float(((x > y) + 0.5 * (x == y))[near].mean())


def metrics(scores: Float[np.ndarray, " n"], r: Relations, caliper: float) -> dict[str, float]:
    """What a query's scores find.

    Args:
        scores: higher is more support; nan is left out.
        r: from `relations`.
        caliper: of the likeness of matched pairs.

    Returns:
        self_rank: 1-based rank of the query among the members, nan for one that is none. Areas
        under the curve, 0.5 by chance: relatives (members of its work under other captions,
        against members of other works); captions (members of other works under its caption,
        against those that share neither); decoys (relatives against decoys of its work that are
        as like it); unrelated (members that share neither, against decoys that share neither and
        are as like it: what membership does for any query); decoy_relatives (decoys of its work
        against decoys that share neither: what likeness does without training). own_members:
        decoys - unrelated.
    """
    decoys = matched_auc(scores, r.relatives, r.decoy_relatives, r.likeness, caliper)
    unrelated = matched_auc(scores, r.neither, r.decoy_neither, r.likeness, caliper)
    return {
        "self_rank": _first(ranks(np.where(r.members, scores, np.nan))[r.query]),
        "relatives": auc(scores[r.relatives], scores[r.other_works]),
        "captions": auc(scores[r.captions], scores[r.neither]),
        "decoys": decoys,
        "unrelated": unrelated,
        "own_members": decoys - unrelated,
        "decoy_relatives": auc(scores[r.decoy_relatives], scores[r.decoy_neither]),
    }


def _first(values: np.ndarray) -> float:
    return float(values[0]) if len(values) else float("nan")
