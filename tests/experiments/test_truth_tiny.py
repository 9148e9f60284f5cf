"""The synthetic comparison with its own small UNet and every method, shrunk to minutes."""

import csv
import json

import pytest

from experiments import truth
from tda_jax.evaluation import truth_methods
from tests.experiments.cards import card
from tests.experiments.test_truth import few_ways

pytestmark = pytest.mark.slow

SHRUNK = {
    "levels": (20, 60),
    "subsets": 8,
    "removal_level": 20,
    "removal_queries": 1,
    "removed": (4,),
    "random_removals": 1,
    "queries": 3,
    "sampler_steps": 5,
    "outcome_replicates": 2,
    "replicates": 2,
    "query_draws": 40,
    "fisher_draws": 2,
    "forget_steps": 5,
    "batch": 40,
    "synthetic.variants": (2, 2, 4, 4),
    "synthetic.captions": 2,
    "synthetic.unseen_works": 1,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("truth")
    plan = truth_methods.own_plan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth_methods, "own_plan", lambda *given: few_ways(plan(*given)))
        config = card("truth_synthetic", **{**SHRUNK, "workdir": str(workdir), "devices": 1})
        return workdir, truth.run(config, lambda *_: None)


def test_every_method_is_told_with_its_figures_on_both_levels(finished):
    workdir, found = finished
    assert found.queries == {"all": 6, "20 updates": 3, "60 updates": 3}
    with (workdir / "tables" / "methods.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["family"]: row for row in csv.DictReader(file)}
    assert {"unlearning, exact", "MUCS", "TRAK", "D-TRAK", "latent similarity"} <= set(rows)
    for row in rows.values():
        assert -1 <= float(row["lds_low"]) <= float(row["lds"]) <= float(row["lds_high"]) <= 1
    assert json.loads((workdir / "truth.json").read_text())["removal"]["removed"]


def test_models_that_are_only_asked_early_are_trained_no_further(finished):
    workdir, _ = finished
    (models,) = workdir.glob("bank/*/models")
    names = [path.name for path in models.iterdir()]
    assert sum(name.endswith(" until 20.safetensors") for name in names) >= 2
    assert len(names) - sum(" until " in name for name in names) == 1 + 2 + 8 * 2
