"""A comparison with retraining, from a world to saved scores and outcomes.

    WORKDIR/bank/HASH/                  retrained models, and losses of queries under them
    WORKDIR/LEVEL/queries.safetensors   generated latents
    WORKDIR/LEVEL/scores/               of every method

Nothing that is there is computed again.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float64

from tda_jax import examples, fingerprint
from tda_jax.baselines.contract import Task
from tda_jax.evaluation import bank as banks
from tda_jax.evaluation import outcomes, removal, subsets
from tda_jax.evaluation.bank import Bank
from tda_jax.evaluation.network import model_of
from tda_jax.evaluation.subsets import Retraining, without
from tda_jax.evaluation.truth_plan import Progress, Sizes, World
from tda_jax.evaluation.truth_queries import queries_of
from tda_jax.evaluation.truth_scores import Entry, Scored, scored, with_said

_QUERIES = ("evaluation.truth_queries", "evaluation.network", "models.unet")


class Setting(NamedTuple):
    """What the steps of one comparison share."""

    world: World
    sizes: Sizes
    workdir: Path
    bank: Bank
    used: tuple[jax.Device, ...]
    batch: int
    progress: Progress


class Level(NamedTuple):
    """What is known at one loss level.

    Attributes:
        updates: of the training.
        queries: with `kind`, `work` and `caption` in their metadata.
        scored: by every method.
        losses: (seeds, subsets, queries), of queries under retrained models.
        full: (seeds, queries), under models of all tracks with the seeds of the others.
    """

    updates: int
    queries: examples.Corpus
    scored: Scored
    losses: Float64[np.ndarray, "seeds subsets queries"]
    full: Float64[np.ndarray, "seeds queries"]


def begin(
    world: World,
    sizes: Sizes,
    workdir: Path,
    used: tuple[jax.Device, ...],
    per_device: int,
    batch: int,
    progress: Progress,
) -> Setting:
    """Opens the bank and trains what it lacks: all tracks, then the random subsets.

    Args:
        world: what is attributed.
        sizes: checked by `truth_plan.refuse`.
        workdir: of the comparison.
        used: local devices.
        per_device: models that one trains at a time.
        batch: latents in the network at a time, on one device.
        progress: told of work done.
    """
    members = examples.take(world.corpus, np.flatnonzero(world.corpus.members))
    bank = banks.open_bank(
        workdir / "bank",
        world.network,
        world.architecture,
        members,
        sizes.recipe,
        sizes.levels,
        used,
        per_device,
        world.dropout,
    )
    setting = Setting(world, sizes, workdir, bank, used, batch, progress)
    banks.fill(bank, [_attributed(sizes), *_full(sizes), *_halved(setting)], progress)
    return setting


def level(
    setting: Setting, updates: int, entries: Callable[[Setting, Task], Sequence[Entry]]
) -> Level:
    """Generates the queries of a level, scores them by every method, and looks at the outcomes.

    Args:
        setting: from `begin`.
        updates: one of the levels.
        entries: gives the methods for a task.
    """
    sizes, folder = setting.sizes, setting.workdir / str(updates)
    theta = banks.parameters(setting.bank, _attributed(sizes), updates)
    source = {
        **setting.bank.made_of,
        "level": updates,
        "code": fingerprint.of_code(*(f"tda_jax.{name}" for name in _QUERIES)),
        "captions": [m["caption"] for m in setting.world.corpus.metadata],
        "bank": setting.bank.folder.name,
        **{name: getattr(sizes, name) for name in ("seed", "queries", "sampler_steps", "guidance")},
    }
    queries = queries_of(
        setting.world, sizes, updates, theta, folder / "queries.safetensors", source
    )
    task = task_of(setting, updates, theta)
    found = scored(entries(setting, task), task, queries, folder / "scores", setting.progress)
    found = with_said(found, setting.world.said, queries.ids)
    seeds = len(sizes.training_seeds)
    lost = _losses(setting, updates, queries, [*_full(sizes), *_halved(setting)])
    by_seed = lost[seeds:].reshape(sizes.subsets, seeds, -1).swapaxes(0, 1)
    return Level(updates, queries, found, by_seed, lost[:seeds])


def task_of(setting: Setting, updates: int, params: Mapping[str, Any]) -> Task:
    """What is attributed at a level."""
    name = f"{setting.bank.folder.name} {_attributed(setting.sizes).name} {updates}"
    return Task(
        model_of(setting.world.network, params, name),
        setting.world.corpus,
        len(setting.bank.ids),
        setting.sizes.seed,
        setting.used,
        setting.batch,
    )


def kept(setting: Setting) -> Bool[np.ndarray, "subsets members"]:
    """Which members each random subset keeps in the training, in the order of the bank's ids."""
    return subsets.kept(setting.bank.ids, _removals(setting))


def removed(
    setting: Setting, at: Level, methods: Mapping[str, Float64[np.ndarray, "queries n"]]
) -> dict[str, dict[int, Float64[np.ndarray, " asked"]]]:
    """How far losses rise when a model is trained without each query's best tracks.

    Args:
        setting: from `begin`.
        at: the level whose queries are asked.
        methods: name -> scores of all tracks.

    Returns:
        By method and number of tracks removed, the rise of the loss of each of the first
        `removal_queries` queries that are no tracks, against the model of all tracks and the same
        seed, in the mean over training seeds; "random" is the mean over random removals.
    """
    sizes, corpus = setting.sizes, setting.world.corpus
    own = set(corpus.ids)  # without itself a track is known less, which says nothing of others
    asked = [i for i, name in enumerate(at.queries.ids) if name not in own]
    asked = asked[: sizes.removal_queries]
    chosen: dict[tuple[str, int], list[tuple[str, ...]]] = {}
    for name, scores in methods.items():
        for k in sizes.removed:
            best = [removal.top(x, corpus.ids, corpus.members, k) for x in scores[asked]]
            chosen[name, k] = best
    for k in sizes.removed:
        share = k / len(setting.bank.ids)
        sets = subsets.random_removals(
            setting.bank.ids, sizes.random_removals, share, sizes.seed + 1
        )
        chosen["random", k] = sets
    sets = dict.fromkeys(s for some in chosen.values() for s in some)
    wanted = [without(s, seed) for s in sets for seed in sizes.training_seeds]
    banks.fill(setting.bank, wanted, setting.progress, at.updates)
    lost = _losses(setting, at.updates, examples.take(at.queries, asked), wanted)
    by_model = dict(zip(wanted, lost, strict=True))
    found: dict[str, dict[int, np.ndarray]] = {name: {} for name, _ in chosen}
    for (name, k), some in chosen.items():
        # (seeds, sets, queries); the sets of a method are one for each query.
        each = np.stack(
            [[by_model[without(s, seed)] for s in some] for seed in sizes.training_seeds]
        )
        mean = each.mean(axis=1) if name == "random" else np.diagonal(each, axis1=1, axis2=2)
        found[name][k] = removal.rises(mean, at.full[:, asked])
    return found


def _losses(
    setting: Setting, updates: int, queries: examples.Corpus, wanted: Sequence[Retraining]
) -> np.ndarray:
    return outcomes.losses(
        setting.bank,
        setting.world.network,
        updates,
        queries,
        wanted,
        setting.sizes.outcome_draws,
        setting.used,
        setting.batch,
        setting.progress,
    )


def _attributed(sizes: Sizes) -> Retraining:
    """The model that is attributed, whose training no other shares the noise of."""
    return without((), sizes.seed)


def _full(sizes: Sizes) -> list[Retraining]:
    return [without((), seed) for seed in sizes.training_seeds]


def _removals(setting: Setting) -> list[tuple[str, ...]]:
    sizes = setting.sizes
    return subsets.random_removals(setting.bank.ids, sizes.subsets, sizes.share, sizes.seed)


def _halved(setting: Setting) -> list[Retraining]:
    """Subset by subset, so that what is there after a kill can be used."""
    return [without(s, seed) for s in _removals(setting) for seed in setting.sizes.training_seeds]
