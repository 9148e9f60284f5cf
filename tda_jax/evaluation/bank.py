"""A bank of retrained models: what the loss of an output truly does without some tracks.

    BANK/made_of.json             what every model of it depends on
    BANK/models/NAME.safetensors  averaged parameters at each level of one `Retraining`; of one that
                                  was trained no further than a level: NAME until LEVEL.safetensors

A bank lies in a folder named by the hash of all that its numbers depend on, so it is shared by all
methods, queries and runs that ask for the same, and a changed recipe never meets its models. Each
model is kept when it is done: a killed run goes on with the next.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tda_jax import artifact, examples, fingerprint
from tda_jax import params as tree
from tda_jax.diffusion.schedules import schedule_to_config
from tda_jax.errors import InputError
from tda_jax.evaluation.network import Network
from tda_jax.evaluation.subsets import Retraining
from tda_jax.training import many
from tda_jax.training.denoiser import Dropout, batch_loss
from tda_jax.training.loop import Recipe

_COMPUTES = ("training.many", "training.denoiser", "models.denoiser", "models.unet")

Progress = Callable[[str, int, int], None]


class Bank(NamedTuple):
    """Where retrained models lie, and what trains them.

    Attributes:
        folder: of the bank.
        ids: of all members, in the order of the trainer's examples.
        made_of: what every model depends on.
        trainer: from `many.make_trainer`.
    """

    folder: Path
    ids: tuple[str, ...]
    made_of: Mapping[str, Any]
    trainer: many.Trainer

    @property
    def levels(self) -> tuple[int, ...]:
        """Numbers of updates whose parameters are kept."""
        return self.trainer.at


def open_bank(
    under: Path,
    network: Network,
    architecture: str,
    members: examples.Corpus,
    recipe: Recipe,
    levels: Sequence[int],
    used: tuple[jax.Device, ...],
    per_device: int = 1,
    dropout: Dropout | None = None,
) -> Bank:
    """The bank of a network and its training set; models are trained when they are asked for.

    Args:
        under: the folder that holds banks.
        network: its parameters are where every model starts: random, or of a common start that is
            then fine-tuned.
        architecture: what tells its network from others of the same parameters, such as a config.
        members: all tracks that a model may be trained on.
        recipe: of a training; the seed is each model's own.
        levels: numbers of updates whose parameters are kept; the last is `recipe.steps`.
        used: local devices.
        per_device: models that one trains at a time; see `many.make_trainer`.
        dropout: of the condition.

    Raises:
        InputError: a number is out of range; the folder is of something else.
    """
    data = (members.examples.latent, members.examples.condition)
    loss = batch_loss(network.predict, network.schedule, dropout)
    trainer = many.make_trainer(loss, network.params, data, recipe, levels, used, per_device)
    made_of = _made_of(network, architecture, members, recipe, levels, dropout, used[0].platform)
    hashed = fingerprint.of_text(repr(sorted(made_of.items())))[:16]
    folder = under / hashed
    remedy = "Delete it to train its models again"
    artifact.claim(folder / "made_of.json", made_of, remedy)
    return Bank(folder, members.ids, made_of, trainer)


def fill(
    bank: Bank, wanted: Sequence[Retraining], progress: Progress, until: int | None = None
) -> None:
    """Trains the models that the bank lacks, and keeps each set that is trained at a time.

    Args:
        bank: from `open_bank`.
        wanted: in the order in which they are to be there.
        progress: told of updates done, over all models that are wanted.
        until: the last level that is asked for; by default the last of all.

    Raises:
        InputError: a model diverged, or removes what is no member; no such level is kept.
    """
    stage, steps = "retraining", bank.levels[-1] if until is None else until
    if steps not in bank.levels:
        raise InputError(f"until = {steps} updates; give one of {bank.levels}")
    lacking = [one for one in dict.fromkeys(wanted) if _found(bank, one, steps) is None]
    total = len(set(wanted)) * steps
    done = total - len(lacking) * steps
    jobs = [_job(bank, one) for one in lacking]  # refuses before the work
    progress(stage, done, total)
    for start in range(0, len(lacking), bank.trainer.together):
        some = slice(start, start + bank.trainer.together)
        count = len(lacking[some])

        def shown(updates: int, so_far: int = done, count: int = count) -> None:
            progress(stage, so_far + updates * count, total)

        found = many.train(bank.trainer, jobs[some], shown, steps)
        for one, levels in zip(lacking[some], found, strict=True):
            arrays = {
                f"{updates}|{path}": leaf
                for updates, params in levels.items()
                for path, leaf in tree.flatten(params).items()
            }
            artifact.save(_path(bank, one, steps), arrays, _source(bank, one), {})
        done += count * steps
        progress(stage, done, total)


def parameters(bank: Bank, one: Retraining, level: int) -> dict[str, Any]:
    """The averaged parameters of a model of the bank after so many updates.

    Raises:
        InputError: the bank has no such model, or it is damaged; no such level is kept.
    """
    if level not in bank.levels:
        raise InputError(f"level {level} is not kept; the bank has {bank.levels}")
    path = _found(bank, one, level) or _path(bank, one, level)
    arrays, _ = artifact.load(path, _source(bank, one))
    start = f"{level}|"
    flat = {name.removeprefix(start): x for name, x in arrays.items() if name.startswith(start)}
    return tree.merge(flat)


def _job(bank: Bank, one: Retraining) -> many.Job:
    place = {name: i for i, name in enumerate(bank.ids)}
    if unknown := [name for name in one.removed if name not in place]:
        raise InputError(f"{unknown[:5]} are no members and cannot be removed from the training")
    out = {place[name] for name in one.removed}
    return many.Job(np.array([i for i in range(len(bank.ids)) if i not in out], np.int64), one.seed)


def _found(bank: Bank, one: Retraining, level: int) -> Path | None:
    """The file of a model that was trained so far at least."""
    paths = (_path(bank, one, until) for until in bank.levels if until >= level)
    return next((path for path in paths if path.exists()), None)


def _path(bank: Bank, one: Retraining, until: int) -> Path:
    more = "" if until == bank.levels[-1] else f" until {until}"
    return bank.folder / "models" / f"{one.name}{more}.safetensors"


def _source(bank: Bank, one: Retraining) -> dict[str, Any]:
    return {**bank.made_of, "removed": list(one.removed), "training_seed": one.seed}


def _made_of(
    network: Network,
    architecture: str,
    members: examples.Corpus,
    recipe: Recipe,
    levels: Sequence[int],
    dropout: Dropout | None,
    platform: str,
) -> dict[str, Any]:
    start = sorted(tree.flatten(network.params).items())
    dropped = None
    if dropout is not None:
        leaves = (fingerprint.of_array(x) for x in jax.tree.leaves(dropout.condition))
        dropped = {"rate": dropout.rate, "condition": fingerprint.of_text(*leaves)}
    return fingerprint.plain(
        {
            "start": fingerprint.of_text(
                *(f"{path} {x.dtype} {x.shape} {fingerprint.of_array(x)}" for path, x in start)
            ),
            "architecture": architecture,
            "schedule": schedule_to_config(network.schedule),
            "members": examples.corpus_fingerprint(members),
            "recipe": {k: v for k, v in recipe._asdict().items() if k != "seed"},
            "levels": list(levels),
            "dropout": dropped,
            "platform": platform,
            "code": fingerprint.of_code(*(f"tda_jax.{name}" for name in _COMPUTES)),
            "versions": fingerprint.versions(),
        },
        "made_of",
    )
