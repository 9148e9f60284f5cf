"""The demo's own scores against retraining, and its report that says so; all of it shrunk."""

import csv
import json

import pytest

from experiments import truth, truth_worlds
from tda_jax.errors import InputError
from tda_jax.evaluation import truth_methods
from tests.experiments import demo_card
from tests.experiments.cards import card
from tests.experiments.test_truth import few_ways

pytestmark = pytest.mark.slow  # minutes of compiling

SHRUNK = {
    "levels": (6,),
    "batch_tracks": 4,
    "subsets": 4,
    "removal_level": 6,
    "removal_queries": 1,
    "removed": (2,),
    "random_removals": 2,
    "outcome_replicates": 1,
    "replicates": 2,
    "query_draws": 20,
    "fisher_draws": 2,
    "forget_steps": 2,
    "devices": 1,
    "demo.works": 6,
    "demo.unet": (8, 16),
    "demo.seconds": 0.64,
    "demo.queries": 2,
    "demo.pieces": 2,
}


def shrunk_demo(workdir):
    return demo_card.card(workdir, **{"attribute.group": "transformer"})  # of either kind


def silent(*_):
    pass


@pytest.fixture(scope="module", params=["text", "class"])
def finished(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("truth")
    config = card("truth_demo", **{**SHRUNK, "workdir": str(workdir), "demo.kind": request.param})
    plan = truth_methods.own_plan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth_worlds, "demo_config", lambda: shrunk_demo(workdir))
        patch.setattr(truth_methods, "own_plan", lambda *given: few_ways(plan(*given)))
        yield workdir, truth.run(config, silent)


def test_the_demo_s_scores_stand_among_the_methods(finished):
    workdir, found = finished
    with (workdir / "tables" / "methods.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["family"]: row for row in csv.DictReader(file)}
    assert {truth_worlds.DEMO, "log-mel similarity", "MUCS", "TRAK"} <= set(rows)
    assert rows[truth_worlds.DEMO]["lds"]
    assert found.queries["all"] == 4
    content = json.loads((workdir / "demo" / "truth.json").read_text())
    assert content["rows"][0]["method"] == truth_worlds.DEMO
    page = (workdir / "demo" / "report" / "index.html").read_text()
    assert "Against retraining" in page
    assert content["verdict"][0].split(",")[0] in page


def test_a_demo_of_other_settings_is_refused(finished):
    workdir, _ = finished
    config = card("truth_demo", **{**SHRUNK, "workdir": str(workdir), "batch_tracks": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truth_worlds, "demo_config", lambda: shrunk_demo(workdir))
        with pytest.raises(InputError, match=r"another|something else"):
            truth.run(config, silent)
