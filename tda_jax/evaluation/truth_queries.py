"""The queries of a comparison with retraining: pieces that the model generates, and tracks of it.

A generated piece is of no work. What it is near to is the work of the member whose latent is most
like it; its caption is the prompt.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from tda_jax import artifact, examples
from tda_jax.baselines.similarity import latent_similarity
from tda_jax.diffusion.generation import Recipe, generate
from tda_jax.evaluation.synthetic import query_ids
from tda_jax.evaluation.truth_plan import Sizes, World
from tda_jax.named_draws import generator


def queries_of(
    world: World, sizes: Sizes, level: int, params: Any, path: Path, source: dict[str, Any]
) -> examples.Corpus:
    """The queries of one level: generated from its model, then tracks, then what is given.

    Args:
        world: what is attributed.
        sizes: `queries`, `own_queries`, `sampler_steps`, `guidance` and `seed` count.
        level: number of updates; generated pieces are named by it.
        params: of the model of all tracks at this level.
        path: of the artifact that keeps generated latents.
        source: what it is made from.

    Returns:
        A corpus whose metadata name `kind` ("generated", "track", or that of what is given),
        `work` and `caption`.

    Raises:
        InputError: a latent is not finite; the artifact is of something else.
    """
    parts = []
    if sizes.queries:
        pieces = _pieces(world, sizes, level)
        if not path.exists():
            artifact.save(path, {"latent": _latents(world, sizes, pieces, params)}, source, {})
        latents = artifact.load(path, source)[0]["latent"]
        made = pieces._replace(examples=pieces.examples._replace(latent=latents))
        parts.append(_near(world, made))
    if sizes.own_queries:
        chosen = query_ids(world.corpus, sizes.own_queries, sizes.seed)
        rows = [world.corpus.ids.index(name) for name in chosen]
        parts.append(_kind(examples.take(world.corpus, rows), "track"))
    if world.given is not None:
        parts.append(_near(world, world.given))
    return _together(parts)


def _pieces(world: World, sizes: Sizes, level: int) -> examples.Corpus:
    """Pieces before they are generated: the conditions of members, captions in turn."""
    rows = _prompts(world, sizes)
    some = examples.take(world.corpus, rows)
    ids = tuple(f"piece {level}-{i:02d}" for i in range(len(rows)))
    metadata = tuple({"kind": "generated", "caption": m["caption"]} for m in some.metadata)
    mask = np.ones_like(some.examples.mask)
    return examples.Corpus(
        ids, some.examples._replace(mask=mask), np.zeros(len(rows), bool), metadata
    )


def _prompts(world: World, sizes: Sizes) -> list[int]:
    """A member for each piece, whose condition prompts it: captions evenly, in a random order."""
    by_caption: dict[str, int] = {}
    for row in np.flatnonzero(world.corpus.members).tolist():
        by_caption.setdefault(world.corpus.metadata[row]["caption"], row)
    rows = np.array([by_caption[name] for name in sorted(by_caption)])
    order = generator(sizes.seed, "prompts").permutation(len(rows))
    return [int(rows[order[i % len(rows)]]) for i in range(sizes.queries)]


def _latents(world: World, sizes: Sizes, pieces: examples.Corpus, params: Any) -> np.ndarray:
    condition = jax.tree.map(np.asarray, pieces.examples.condition)
    none = condition
    if world.dropout is not None:
        n = len(pieces.ids)
        none = jax.tree.map(
            lambda x: np.broadcast_to(np.asarray(x)[None], (n, *np.shape(x))),
            world.dropout.condition,
        )
    recipe = Recipe(steps=sizes.sampler_steps, guidance=sizes.guidance, seed=sizes.seed)
    network, shape = world.network, world.corpus.examples.latent.shape[1:]
    return generate(
        network.predict, network.schedule, params, pieces.ids, condition, none, shape, recipe
    )


def _near(world: World, queries: examples.Corpus) -> examples.Corpus:
    """Names the work of the nearest member where the metadata name none."""
    members = examples.take(world.corpus, np.flatnonzero(world.corpus.members))
    alike = latent_similarity(queries.examples, members.examples)
    nearest = [members.metadata[i]["work"] for i in np.nanargmax(alike, axis=1)]
    metadata = tuple({"work": w, **m} for w, m in zip(nearest, queries.metadata, strict=True))
    return queries._replace(metadata=metadata)


def _kind(queries: examples.Corpus, kind: str) -> examples.Corpus:
    return queries._replace(metadata=tuple({**m, "kind": kind} for m in queries.metadata))


def _together(parts: list[examples.Corpus]) -> examples.Corpus:
    """The queries in one corpus, in the order of the parts."""
    data = jax.tree.map(lambda *x: np.concatenate(x), *(p.examples for p in parts))
    return examples.Corpus(
        tuple(name for p in parts for name in p.ids),
        data,
        np.concatenate([p.members for p in parts]),
        tuple(m for p in parts for m in p.metadata),
    )
