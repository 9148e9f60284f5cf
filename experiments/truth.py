"""Holds unlearning and its rivals against retraining, and says what the defaults should be.

python -m experiments.truth --config=configs/truth_synthetic.py
"""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs.truth_synthetic import get_config
from experiments import cards, demo, truth_worlds
from experiments.progress import Bars, Progress
from tda_jax import devices, fingerprint, keys
from tda_jax.artifact import whole_file
from tda_jax.baselines.contract import Task
from tda_jax.baselines.forgetting import Ascent
from tda_jax.baselines.ways import Variant
from tda_jax.errors import InputError
from tda_jax.evaluation import truth, truth_analysis, truth_methods, truth_tables
from tda_jax.evaluation.truth import Level, Setting
from tda_jax.evaluation.truth_analysis import Analysis
from tda_jax.evaluation.truth_plan import Sizes, refuse, refuse_sizes
from tda_jax.evaluation.truth_scores import Entry, with_pairs
from tda_jax.examples import Corpus
from tda_jax.export import write_csv
from tda_jax.report import truth_figures
from tda_jax.training.loop import Recipe

_STRATA = 10
_WORLDS = {"synthetic": truth_worlds.synthetic, "demo": truth_worlds.demo}
_RIVAL, _LIKE = "best rival", "most similar"
_RIVALS = ("gradient dot (TracIn)", "gradient cosine (TracIn)", "TRAK", "D-TRAK", "MUCS")


def run(config: ConfigDict, progress: Progress) -> Analysis:
    """Runs what is missing of a comparison; writes tables, figures and the verdict.

    Args:
        config: as `configs/truth_synthetic.py` gives it.
        progress: told of work done.

    Raises:
        InputError: a setting cannot be used, before the work; a file is of something else.
    """
    began, workdir = time.monotonic(), Path(config.workdir)
    cards.refuse_keys(config, get_config(), "configs/truth_synthetic.py")
    if config.world not in _WORLDS:
        raise InputError(f"world = {config.world!r}; choose one of {sorted(_WORLDS)}")
    sizes = sizes_of(config)
    refuse_sizes(sizes)
    _refuse_scores(config)
    world = _WORLDS[config.world](config, progress)
    refuse(sizes, world)
    used = devices.local_devices(config.devices or None)
    setting = truth.begin(world, sizes, workdir, used, config.per_device, config.batch, progress)
    own: dict[str, Variant] = {}

    def entries(_: Setting, task: Task) -> list[Entry]:
        found, families = truth_methods.entries(
            world, task, _budget(config), _ascent(config, world)
        )
        own.update(families)
        return found

    levels = [truth.level(setting, updates, entries) for updates in sizes.levels]
    pairs = truth_methods.pairs(levels[0].scored.method)
    levels = [_with_pairs(level, pairs, world.corpus) for level in levels]
    families = truth_methods.families(levels[0].scored.method, own)
    found = truth_analysis.analyse(
        levels,
        world.corpus,
        truth.kept(setting),
        families,
        truth_methods.DEFAULTS,
        seed=sizes.seed,
    )
    taken = _removed(setting, levels, found) if sizes.removal_queries else None
    each = truth_tables.settings(found, own)
    _write(workdir, config, found, each, taken, time.monotonic() - began)
    if config.world == "demo":
        _tell_demo(config, found, progress)
    return found


def _with_pairs(level: Level, pairs: truth_methods.Pairs, corpus: Corpus) -> Level:
    itself = np.array(level.queries.ids)[:, None] == np.array(corpus.ids)
    return level._replace(scored=with_pairs(level.scored, pairs, corpus.members & ~itself))


def _tell_demo(config: ConfigDict, found: Analysis, progress: Progress) -> None:
    """Says in the demo's report how its own queries fared; nothing else of it is made anew."""
    place = Path(config.workdir) / "demo"
    content = truth_tables.for_report(found, truth_worlds.DEMO)
    _text(place / "truth.json", json.dumps(content, indent=1) + "\n")
    demo.run(truth_worlds.demo_card(config), progress)


def _refuse_scores(config: ConfigDict) -> None:
    """What methods would refuse only once the models are trained."""
    for name in ("replicates", "fisher_draws", "forget_steps", "outcome_replicates", "batch"):
        if config[name] < 1:
            raise InputError(f"{name} = {config[name]}; give 1 at least")
    if config.world == "demo" and (config.queries or config.own_queries):
        raise InputError(
            f"queries = {config.queries} and own_queries = {config.own_queries}: of the demo its "
            "own queries are compared; give 0 here, and demo.pieces and demo.queries instead"
        )
    if config.ways not in ("all", "few"):
        raise InputError(f"ways = {config.ways!r}; choose all or few")
    if config.query_draws < 2 * _STRATA or config.query_draws % (2 * _STRATA):
        raise InputError(
            f"query_draws = {config.query_draws}; give a multiple of {2 * _STRATA}: two blocks, "
            f"each over {_STRATA} parts of the schedule"
        )


def sizes_of(config: ConfigDict) -> Sizes:
    """The sizes that a card asks for."""
    recipe = Recipe(config.levels[-1], config.batch_tracks, config.learning_rate, 0)
    draws = keys.Draws(config.outcome_replicates, _STRATA)
    given = {name: config[name] for name in Sizes._fields if name in config}
    return Sizes(**{**given, "recipe": recipe, "outcome_draws": draws})


def _budget(config: ConfigDict) -> truth_methods.Budget:
    draws = keys.Draws(config.replicates, _STRATA)
    return truth_methods.Budget(draws, config.query_draws, config.fisher_draws, config.ways)


def _ascent(config: ConfigDict, world: truth_worlds.World) -> Ascent:
    """MUCS as published: a tenth of the training's learning rate."""
    return Ascent(config.learning_rate / 10, world.untrained, steps=config.forget_steps)


def _removed(setting: Setting, levels: list[Level], found: Analysis) -> dict[str, list[Any]]:
    """The default's best tracks removed, beside the best rival's, the most similar and random."""
    at = next(x for x in levels if x.updates == setting.sizes.removal_level)
    lds = {row.family: found.variants[row.variant][1] for row in found.rows}
    rival = max((f for f in _RIVALS if f in lds and lds[f] == lds[f]), key=lds.__getitem__)
    chosen = {row.family: row.variant for row in found.rows}
    methods = {"unlearning": found.default, f"{_RIVAL}, {rival}": chosen[rival]}
    methods[_LIKE] = "latent similarity"
    scores = {name: at.scored.scores[variant] for name, variant in methods.items()}
    return truth_tables.removals(truth.removed(setting, at, scores), "unlearning")


def _write(
    workdir: Path,
    config: ConfigDict,
    found: Analysis,
    each: dict[str, list[Any]],
    taken: dict[str, list[Any]] | None,
    seconds: float,
) -> None:
    said = truth_tables.verdict(found, taken)
    write_csv(workdir / "tables" / "methods.csv", truth_tables.columns(found))
    write_csv(workdir / "tables" / "variants.csv", truth_tables.variants(found))
    write_csv(workdir / "tables" / "settings.csv", each)
    if taken is not None:
        write_csv(workdir / "tables" / "removal.csv", taken)
    _text(workdir / "tables.md", truth_tables.markdown(found, each, taken))
    _text(workdir / "verdict.md", "\n".join(f"- {line}" for line in said) + "\n")
    drawn = truth_figures.draw(workdir / "figures", found, taken)
    content = {
        "config": fingerprint.plain(json.loads(config.to_json()), "config"),
        "default": found.default,
        "verdict": said,
        "methods": truth_tables.columns(found),
        "removal": taken,
        "seconds": seconds,
        "code": fingerprint.of_code("tda_jax.evaluation.truth_analysis"),
        "versions": fingerprint.versions(),
    }
    _text(workdir / "truth.json", json.dumps(content, indent=1) + "\n")
    print("\n".join(said))
    print(
        f"{len(found.variants)} variants of {len(found.rows)} methods against retraining in "
        f"{seconds / 60:.1f} minutes; {workdir}: verdict.md, tables.md, tables/, truth.json, "
        + ", ".join(f"figures/{path.name}" for path in drawn)
    )


def _text(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def main(config: ConfigDict) -> None:
    """Runs the card with bars of progress and compiled programs that are kept."""
    if config.devices:
        jax.config.update("jax_num_cpu_devices", config.devices)
    cards.keep_compiled(Path(config.workdir) / "cache")
    with Bars() as bars:
        run(config, bars)


if __name__ == "__main__":
    cards.start(main, "configs/truth_synthetic.py", {"workdir": "config.workdir"})
