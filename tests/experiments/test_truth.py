"""The comparison with retraining, end to end on a network of a few hundred parameters."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import truth, truth_worlds
from tda_jax.baselines.forgetting import Ascent
from tda_jax.errors import InputError
from tda_jax.evaluation import bank as banks
from tda_jax.evaluation import truth_methods
from tda_jax.evaluation.synthetic import synthetic_corpus
from tda_jax.evaluation.truth_plan import World
from tda_jax.training import many
from tests.evaluation import few_parameters
from tests.experiments.cards import card

pytestmark = pytest.mark.slow  # minutes; `.ci/run` runs all but kills and more subsets

SHRUNK = {
    "levels": (8, 30),
    "batch_tracks": 4,
    "learning_rate": 2e-2,
    "subsets": 6,
    "removal_level": 30,
    "removal_queries": 2,
    "removed": (1, 2),
    "random_removals": 2,
    "queries": 2,
    "own_queries": 1,
    "sampler_steps": 3,
    "outcome_replicates": 2,
    "replicates": 2,
    "query_draws": 40,
    "fisher_draws": 2,
    "forget_steps": 4,
    "devices": 1,
}


def silent(*_):
    pass


def world(*_):
    network = few_parameters.network()
    corpus = synthetic_corpus(0, 3, (2, 2, 4), 2, 2, 1)
    return World(network, "few", corpus, network.params)


def shrunk(workdir, **changes):
    return card("truth_synthetic", **{**SHRUNK, "workdir": str(workdir), **changes})


@pytest.fixture(autouse=True, scope="module")
def _few():
    plan = truth_methods.own_plan
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(truth._WORLDS, "synthetic", world)
        patch.setattr(truth, "_ascent", ascent)
        patch.setattr(truth_methods, "own_plan", lambda *given: few_ways(plan(*given)))
        yield


def ascent(config, w):
    return Ascent(1e-3, w.network.params, "block/.*", config.forget_steps)


def few_ways(plan):
    ways = plan.ways[1:3] + plan.ways[-2:]  # dampings of 0.01, of pairs, and 0.1, of steps
    return plan._replace(ways=ways, steps=tuple(s for s in plan.steps if s.way in ways))


@pytest.fixture(scope="module")
def finished(_few, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("truth")
    return workdir, truth.run(shrunk(workdir), silent)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_result_is_written(finished):
    workdir, found = finished
    told = rows(workdir / "tables" / "methods.csv")
    families = {row["family"] for row in told}
    rivals = {"TRAK", "D-TRAK", "MUCS", "latent similarity", "caption similarity", "chance"}
    assert families >= rivals | {"unlearning, exact", "scrambled signs (control)"}
    assert families >= {truth_methods.PAIRED, "latent similarity and D-TRAK (control)"}
    assert all(row["lds"] for row in told)
    variants = rows(workdir / "tables" / "variants.csv")
    assert found.default in {row["variant"] for row in variants}
    removal = rows(workdir / "tables" / "removal.csv")
    assert {row["removed"] for row in removal} == {"1", "2"}
    assert {row["method"] for row in removal} >= {"random", "unlearning", "most similar"}
    words = (workdir / "verdict.md").read_text()
    assert f"`{found.default}` is chosen" in words
    assert "noise ceiling" in (workdir / "tables.md").read_text()
    content = json.loads((workdir / "truth.json").read_text())
    assert content["default"] == found.default
    for name in ("lds", "cost", "removal"):
        with Image.open(workdir / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
        assert (workdir / "figures" / f"{name}.svg").stat().st_size > 1000


def test_a_pair_costs_both_and_is_no_default(finished):
    workdir, found = finished
    row = next(row for row in found.rows if row.family == truth_methods.PAIRED)
    one, other = row.variant.split(" + ")
    assert one == truth_methods.USUAL.name
    assert other.startswith("D-TRAK ")
    assert not row.own
    assert found.default != row.variant
    told = {name: family for name, (family, _, _) in found.variants.items()}
    assert told[one] == "unlearning, linearised"
    assert told[other] == "D-TRAK"
    by_family = {row["family"]: row for row in rows(workdir / "tables" / "methods.csv")}
    alone = [float(by_family[f]["passes_query"]) for f in ("unlearning, linearised", "D-TRAK")]
    assert float(by_family[row.family]["passes_query"]) == sum(alone)


def test_parts_of_the_queries_are_told_apart(finished):
    _, found = finished
    wanted = {"all": 6, "8 updates": 3, "30 updates": 3}
    wanted |= {"generated queries": 4, "track queries": 2}
    assert found.queries == wanted
    assert found.subsets == (3, 3)


def test_a_killed_run_goes_on_and_gives_the_same(finished, tmp_path, monkeypatch):
    workdir, _ = finished
    train, trained = many.train, []

    def until_killed(*given):
        if len(trained) == 5:
            raise KeyboardInterrupt
        trained.append(given[1])
        return train(*given)

    monkeypatch.setattr(many, "train", until_killed)
    with pytest.raises(KeyboardInterrupt):
        truth.run(shrunk(tmp_path), silent)
    monkeypatch.setattr(many, "train", train)
    truth.run(shrunk(tmp_path), silent)
    for name in ("methods", "variants", "removal"):
        path = f"tables/{name}.csv"
        assert (tmp_path / path).read_bytes() == (workdir / path).read_bytes()


def test_a_second_run_computes_nothing(finished, monkeypatch):
    workdir, found = finished
    for module, name in ((many, "train"), (banks.many, "train")):
        monkeypatch.setattr(module, name, None)
    monkeypatch.setattr("tda_jax.attribution.sweep.losses", None)
    monkeypatch.setattr("tda_jax.attribution.linearised.expand", None)
    assert truth.run(shrunk(workdir), silent).default == found.default


def test_more_subsets_take_what_is_there(finished, tmp_path):
    workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "more")
    told = []
    found = truth.run(shrunk(tmp_path / "more", subsets=8), lambda *g: told.append(g))
    first = next(g for g in told if g[0] == "retraining")
    assert first[2] - first[1] == 4 * 30  # two more sets with two seeds each
    assert first[1] >= 12 * 30  # two of the random sets of four of eight tracks are alike
    assert found.subsets == (4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": 0, "own_queries": 0, "removal_queries": 0}, "ask for one at least"),
        ({"world": "other"}, "choose one of"),
        ({"subsets": 3}, "subsets = 3; give 4"),
        ({"training_seeds": (1, 1)}, r"training_seeds = 1; give 2"),
        ({"training_seeds": (1, 1, 2)}, "repeat"),
        ({"training_seeds": (0, 1)}, "hold seed = 0"),
        ({"query_draws": 50}, "query_draws = 50"),
        ({"replicates": 0}, "replicates = 0"),
        ({"own_queries": 9}, "own_queries = 9 of 8"),
        ({"removal_level": 9}, "removal_level = 9"),
        ({"removed": (8,)}, r"removed = \(8,\)"),
        ({"removal_queries": 9}, "removal_queries = 9 of 2"),
        ({"levels": (30, 8)}, "rising"),
        ({"share": 0.0}, "some tracks in"),
    ],
)
def test_a_card_that_cannot_be_run_is_refused_before_work(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(many, "train", None)
    with pytest.raises(InputError, match=message):
        truth.run(shrunk(tmp_path, **change), silent)


def test_a_common_start_is_trained_on_other_tracks(tmp_path):
    sizes = {"variants": (2, 2, 4), "captions": 2, "held_out": 1, "unseen_works": 1}
    given = {f"synthetic.{name}": value for name, value in sizes.items()}
    told = []
    made = [
        truth_worlds.synthetic(
            shrunk(tmp_path, **given, **{"synthetic.start_updates": n}), lambda *x: told.append(x)
        )
        for n in (0, 3, 3)
    ]
    scratch, start, again = (world.network.params for world in made)
    same = [jax.tree.map(np.array_equal, start, other) for other in (scratch, again)]
    assert not any(jax.tree.leaves(same[0]))
    assert all(jax.tree.leaves(same[1]))
    for world in made:  # what is retrained from it, and what it was before, stay the same
        assert world.corpus.ids == made[0].corpus.ids
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, world.untrained, scratch)))
    assert ("training the start", 3, 3) in told
