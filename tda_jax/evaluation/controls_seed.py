"""One seed of the controls: its corpus, its trained levels, and a query's direction at each.

Every result is an artifact in the seed's folder, made once:

    trained.safetensors              the parameters at each loss level
    fisher-LEVEL.safetensors         the Fisher information of all parameters
    before-LEVEL.safetensors         the losses of every track at that level
    gradient-LEVEL-QUERY.safetensors the query's gradient
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tda_jax import artifact, examples, fingerprint
from tda_jax import params as tree
from tda_jax.attribution import fisher, sweep, unlearn
from tda_jax.diffusion.schedules import schedule_to_config
from tda_jax.evaluation.controls_passes import Passes, Placed, place, seeded
from tda_jax.evaluation.controls_plan import Plan
from tda_jax.evaluation.network import Network
from tda_jax.evaluation.synthetic import query_ids, synthetic_corpus
from tda_jax.training.denoiser import fit
from tda_jax.training.loop import Recipe

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total), called as work goes on."""

_TRAINING = ("works", "variants", "captions", "held_out", "unseen_works")
_TRAINING += ("updates", "batch", "learning_rate")
_SWEEP = (*_TRAINING, "replicates", "strata")
DIRECTION = (*_TRAINING, "damping", "fisher_draws", "query_draws", "query_draw_counts")
"""Settings that a query's gradient and the Fisher information depend on."""
_SHOWS = 50  # updates between two signs of progress


class Context(NamedTuple):
    """What the work for one seed shares.

    Attributes:
        seed: of corpus, training and draws.
        plan: sizes.
        network: before training.
        corpus: members and decoys.
        queries: ids of members, in their order.
        passes: the programs, with the draws of this seed.
        folder: of the artifacts.
        made_of: what all of them are made from.
        progress: told of work done.
    """

    seed: int
    plan: Plan
    network: Network
    corpus: examples.Corpus
    queries: tuple[str, ...]
    passes: Passes
    folder: Path
    made_of: Mapping[str, Any]
    progress: Progress


class Level(NamedTuple):
    """One loss level of a seed: updates done, parameters placed, and their Fisher information."""

    updates: int
    placed: Placed
    fisher: tree.Flat


def context(
    seed: int, plan: Plan, network: Network, passes: Passes, workdir: Path, progress: Progress
) -> Context:
    """Makes the corpus of a seed and chooses its queries."""
    corpus = synthetic_corpus(
        seed, plan.works, plan.variants, plan.captions, plan.held_out, plan.unseen_works
    )
    start = [fingerprint.of_array(x) for _, x in sorted(tree.flatten(network.params).items())]
    made_of = {
        "seed": seed,
        "corpus": examples.corpus_fingerprint(corpus),
        "start": fingerprint.of_text(*start),
        "groups": dict(network.groups),
        "schedule": schedule_to_config(network.schedule),
        "code": fingerprint.of_code("tda_jax.evaluation.controls", "tda_jax.attribution.unet"),
        "versions": fingerprint.versions(),
    }
    chosen = tuple(query_ids(corpus, plan.queries, seed))
    folder = workdir / f"seed-{seed}"
    passes = seeded(passes, seed)
    return Context(seed, plan, network, corpus, chosen, passes, folder, made_of, progress)


def kept(
    c: Context, name: str, settings: tuple[str, ...], make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of an artifact, made now if they are not there.

    Args:
        c: the seed.
        name: of the file, without its ending.
        settings: names in the plan that the arrays depend on.
        make: computes them.

    Raises:
        InputError: what is there was made from something else.
    """
    path = c.folder / f"{name}.safetensors"
    source = {**c.made_of, "plan": {field: getattr(c.plan, field) for field in sorted(settings)}}
    if not path.exists():
        artifact.save(path, make(), source, {})
    return artifact.load(path, source)[0]


def level(c: Context, updates: int) -> Level:
    """The level after so many updates of the seed's training."""
    flat = trained(c)[updates]
    placed = place(c.passes, tree.merge(flat))
    names = (*_TRAINING, "fisher_draws")
    found = kept(c, f"fisher-{updates}", names, lambda: _fisher(c, placed))
    return Level(updates, placed, found)


def trained(c: Context) -> dict[int, tree.Flat]:
    """The parameters at each level, from one training."""
    arrays = kept(c, "trained", _TRAINING, lambda: _train(c))
    levels: dict[int, tree.Flat] = {updates: {} for updates in c.plan.updates}
    for name, leaf in arrays.items():
        updates, path = name.split("|")
        levels[int(updates)][path] = leaf
    return levels


def members(c: Context) -> examples.Corpus:
    """The tracks that were trained on."""
    return examples.take(c.corpus, np.flatnonzero(c.corpus.members))


def before(c: Context, at: Level) -> np.ndarray:
    """The losses of every track at a level, (n, R, S)."""
    arrays = kept(
        c, f"before-{at.updates}", _SWEEP, lambda: {"loss": losses(c, at, no_step(at), c.corpus)}
    )
    return arrays["loss"]


def losses(c: Context, at: Level, step: tree.Flat, corpus: examples.Corpus) -> np.ndarray:
    """The losses of tracks with the parameters moved, (n, R, S); padding counts."""
    moved = sweep.displaced(c.passes.sweep, at.placed.sweep, step)
    seen = examples.unmasked(corpus.examples)
    return sweep.losses(c.passes.sweep, at.placed.sweep, moved, seen, corpus.ids).draws


def no_step(at: Level) -> tree.Flat:
    """Zeros like the parameters."""
    return jax.tree.map(np.zeros_like, at.placed.moved)


def gradient(c: Context, at: Level, query: str) -> tree.Flat:
    """The query's mean gradient at a level; its padding does not count."""
    return kept(
        c,
        f"gradient-{at.updates}-{query}",
        DIRECTION,
        lambda: unlearn.mean_of_blocks(gradient_blocks(c, at, query, c.passes.gradient.blocks)),
    )


def gradient_blocks(c: Context, at: Level, query: str, blocks: int) -> tree.Flat:
    """The query's gradient in so many blocks of `Plan.block_draws`: path -> (blocks, ...)."""
    one = jax.tree.map(lambda x: x[0], one_query(c, query).examples)
    made = c.passes.gradient._replace(blocks=blocks)
    return unlearn.query_gradient(made, at.placed.gradient, no_step(at), one, query).blocks


def one_query(c: Context, query: str) -> examples.Corpus:
    """The query as a corpus of one."""
    return examples.take(c.corpus, [c.corpus.ids.index(query)])


def _fisher(c: Context, placed: Placed) -> tree.Flat:
    made, used = c.passes.fisher, members(c)
    start = fisher.start(made, placed.moved)
    total = fisher.add(made, start, placed.fisher, used.examples, used.ids)
    return fisher.information(total)


def _train(c: Context) -> dict[str, np.ndarray]:
    plan, found = c.plan, {}

    def callback(done: int, params: Any) -> None:
        c.progress("training", done, plan.updates[-1])
        if done in plan.updates:
            flat = tree.flatten(params)
            found.update({f"{done}|{path}": np.asarray(leaf) for path, leaf in flat.items()})

    c.progress("training", 0, plan.updates[-1])
    fit(
        c.network.predict,
        c.network.schedule,
        c.network.params,
        members(c).examples,
        Recipe(plan.updates[-1], plan.batch, plan.learning_rate, c.seed),
        callback=callback,
        callback_steps=sorted({*plan.updates, *range(_SHOWS, plan.updates[-1] + 1, _SHOWS)}),
    )
    return found
