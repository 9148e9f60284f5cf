"""The table over seeds, from evaluations that are written by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import demo, demo_seeds
from tda_jax.errors import InputError
from tda_jax.evaluation import retrieval
from tests.experiments import cards


def card(workdir, **changes):
    return cards.card("demo_seeds", workdir=str(workdir), **changes)


def row(method, relatives):
    known = {"mean": relatives, "low": None, "high": None, "count": 8}
    figures = dict.fromkeys(retrieval.METRICS, known) | {"member_auc": None}
    return {"method": method, **figures}


def fake(monkeypatch, by_seed):
    """Demos that are there at once."""

    def run(config, progress):
        workdir = Path(config.workdir)
        workdir.mkdir(parents=True)
        assert workdir.name == f"seed-{config.seed}"
        rows = [row("unlearning", by_seed[config.seed]), row(retrieval.CHANCE, 0.5)]
        (workdir / "evaluation.json").write_text(json.dumps({"rows": rows}))

    monkeypatch.setattr(demo, "run", run)


def test_means_and_intervals_are_over_seeds(monkeypatch, tmp_path):
    fake(monkeypatch, {0: 0.6, 1: 0.7, 2: 0.8})
    own, luck = demo_seeds.run(card(tmp_path), lambda *_: None)
    found = own.figures["relatives_auc"]
    half = 4.302653 * 0.1 / np.sqrt(3)  # t of two degrees
    assert found == pytest.approx((0.7, 0.7 - half, 0.7 + half, 3), abs=1e-6)
    assert own.figures["member_auc"] is None
    assert luck.figures["relatives_auc"].mean == 0.5
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert float(first["relatives_auc_low"]) == pytest.approx(0.7 - half)
    assert first["member_auc_mean"] == ""
    text = (tmp_path / "evaluation.md").read_text()
    assert "| unlearning | 0.70 [0.45, 0.95] | 0.70 [0.45, 0.95] |" in text
    assert "| none |" in text
    saved = json.loads((tmp_path / "evaluation.json").read_text())
    assert saved["seeds"] == [0, 1, 2]
    pixels = np.asarray(Image.open(tmp_path / "evaluation.png").convert("L"))
    assert (pixels < 64).sum() > 500  # marks and words are drawn


@pytest.mark.parametrize("seeds", [(), (0, 0)])
def test_seeds_that_cannot_be_are_refused(tmp_path, seeds):
    with pytest.raises(InputError, match="give one at least, each once"):
        demo_seeds.run(card(tmp_path, seeds=seeds), lambda *_: None)
