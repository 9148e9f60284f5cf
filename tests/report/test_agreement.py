"""Scores against retraining: how a file is read or refused, and where bars stand."""

import itertools
import math
import re

import pytest

from tda_jax.errors import InputError
from tda_jax.report import agreement
from tda_jax.report.evidence import Measured
from tests.report import saved


def read(folder, **changes):
    return agreement.read_truth(saved.write_truth(folder, saved.truth() | changes))


def changed(place, value):
    """What is given, with another value at a place such as ("rows", 0, "own")."""
    content = here = saved.truth()
    for key in place[:-1]:
        here = here[key]
    here[place[-1]] = value
    return content


def test_a_file_is_read_as_it_is(tmp_path):
    found = read(tmp_path)
    assert found.note == f"Of 40 models, 11 queries {saved.EVIL}"
    assert found.ceiling == Measured(0.75, 0.7, 0.8, 11)
    assert [tuple(row) for row in found.rows] == [
        ("the demo's scores", True, Measured(0.416, 0.2, 0.61, 11)),
        ("TRAK", False, Measured(0.5, None, None, 11)),
        (saved.EVIL, False, Measured(-0.1, -0.25, 0.05, 11)),
        ("chance", False, None),
    ]
    assert found.verdict == ("The scores are above chance.", f"TRAK is {saved.EVIL}.")
    assert read(tmp_path, verdict=[]).verdict == ()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("note",), 3, "note is 3, and no text"),
        (("ceiling",), None, "ceiling has no 'mean'"),
        (("ceiling",), 0.7, "ceiling has no 'mean'"),
        (("ceiling", "mean"), None, "ceiling has no mean"),
        (("ceiling", "mean"), math.nan, "ceiling.mean is nan, and no finite number"),
        (("rows",), [], "rows is [], with no method"),
        (("rows",), {"a": 1}, "rows is {'a': 1}, and no list"),
        (("rows", 1), "TRAK", "rows[1] has no 'own'"),
        (("rows", 1), {"method": "x", "own": True}, "rows[1] has no 'lds'"),
        (("rows", 1, "method"), None, "rows[1].method is None, and no text"),
        (("rows", 0, "own"), 1, "rows[0].own is 1, and not true or false"),
        (("rows", 2, "lds"), None, "rows[2].lds has no 'mean'"),
        (("rows", 2, "lds", "mean"), "0.4", "rows[2].lds.mean is '0.4', and no finite number"),
        (("rows", 2, "lds", "mean"), True, "rows[2].lds.mean is True, and no finite number"),
        (("rows", 2, "lds", "mean"), 10**400, "int too large to convert to float"),
        (("rows", 2, "lds", "high"), math.inf, "rows[2].lds.high is inf, and no finite number"),
        (("rows", 2, "lds", "low"), 0.5, "rows[2].lds has low = 0.5 above high = 0.05"),
        (("rows", 2, "lds", "count"), 1.5, "rows[2].lds.count is 1.5, and no whole number"),
        (("verdict",), "a sentence", "verdict is 'a sentence', and no list"),
        (("verdict", 1), {}, "verdict[1] is {}, and no text"),
    ],
)
def test_what_is_no_comparison_is_refused(tmp_path, place, value, message):
    path = saved.write_truth(tmp_path, changed(place, value))
    remedy = "; give the truth.json that experiments.truth wrote into the folder of a demo"
    with pytest.raises(InputError, match="^" + re.escape(f"{path}: {message}{remedy}") + "$"):
        agreement.read_truth(path)


@pytest.mark.parametrize("key", ["note", "ceiling", "rows", "verdict"])
def test_a_part_that_is_missing_is_named(tmp_path, key):
    path = saved.write_truth(tmp_path, {k: v for k, v in saved.truth().items() if k != key})
    with pytest.raises(InputError, match=re.escape(f"{path}: has no '{key}'; give the truth.json")):
        agreement.read_truth(path)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "truth.json"
    path.write_bytes(b"\xff{")
    with pytest.raises(InputError, match=re.escape(f"{path}: cannot be read")):
        agreement.read_truth(path)


def test_bars_stand_where_scores_do(tmp_path):
    found = read(tmp_path)
    drawn = agreement.strips(found)
    per_unit = (drawn.ceiling - drawn.zero) / 0.75  # per cent of the axis

    def place(score):
        return pytest.approx(drawn.zero + per_unit * score, abs=0.03)

    own, alone, below, nothing = drawn.rows
    assert own.left == drawn.zero
    assert own.left + own.width == place(0.416)
    assert (own.low, own.high) == (place(0.2), place(0.61))
    assert alone.left + alone.width == place(0.5)
    assert (alone.low, alone.high) == (None, None)
    assert below.left == place(-0.1)  # a bar below zero ends there
    assert below.left + below.width == pytest.approx(drawn.zero)
    assert (below.low, below.high) == (place(-0.25), place(0.05))
    assert nothing is None
    assert (drawn.spread.low, drawn.spread.high) == (place(0.7), place(0.8))
    for at, says in drawn.ticks:
        assert at == place(float(says.replace("−", "-")))
    assert (drawn.zero, "0") in drawn.ticks


@pytest.mark.parametrize(
    ("means", "top"),
    [
        ((0.2, 0.4), (0.6, 0.5, 0.7)),
        ((-1.0, 1.0), (1.0, 1.0, 1.0)),
        ((-0.3, -0.1), (-0.2, -0.4, -0.05)),  # few retrained models can give even that
        ((0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1e-4, 2e-4), (3e-4, None, None)),
    ],
)
def test_all_bars_are_on_the_axis_and_labels_do_not_touch(means, top):
    lds = [Measured(mean, mean - 0.01, mean + 0.01, 3) for mean in means]
    rows = tuple(agreement.Agreement("a method", False, one) for one in lds)
    drawn = agreement.strips(agreement.Truth("", Measured(*top, 3), rows, ()))
    for one in (*drawn.rows, drawn.spread):
        places = (one.left, one.left + one.width, one.low, one.high)
        assert all(0 <= x <= 100 for x in places if x is not None)
    assert all(0 <= x <= 100 for x in (drawn.zero, drawn.ceiling))
    places = [at for at, _ in drawn.ticks]
    assert len(places) >= 2
    assert min(b - a for a, b in itertools.pairwise(places)) >= 25
