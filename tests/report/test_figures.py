"""What the figures show, read off their artists."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from tda_jax.errors import InputError
from tda_jax.report import figures

N = 50


def columns(n=N):
    rng = np.random.default_rng(0)
    score = np.sort(rng.standard_normal(n) ** 3)[::-1]
    return {
        "id": [f"track {i}" for i in range(n)],
        "score": score,
        "standard_error": np.full(n, 0.2),
        "direction_error": np.full(n, np.nan),
        "member": np.arange(n) % 3 != 0,
    }


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved; they are written too."""
    kept, save = [], figures._save

    def keep(figure, path):
        kept.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "_save", keep)
    return kept


def text_of(figure):
    (axes,) = figure.axes
    (legend,) = figure.legends
    words = [t.get_text() for t in legend.get_texts()]
    return axes, words


@pytest.mark.parametrize("draw", [figures.distribution, figures.top])
def test_a_png_is_written(tmp_path, draw):
    draw(tmp_path / "new" / "x.png", columns(), "track 4")
    assert (tmp_path / "new" / "x.png").read_bytes().startswith(b"\x89PNG\r\n")


@pytest.fixture
def histograms(monkeypatch):
    """(values, bin edges, weights) of every histogram; they are drawn too."""
    kept, draw = [], Axes.hist

    def keep(axes, values, edges, weights, **style):
        kept.append((values, edges, weights))
        return draw(axes, values, edges, weights=weights, **style)

    monkeypatch.setattr(Axes, "hist", keep)
    return kept


def test_each_kind_is_shown_as_shares_of_itself(tmp_path, drawn, histograms):
    given = columns()
    figures.distribution(tmp_path / "x.png", given, "track 4")
    axes, words = text_of(drawn[0])
    assert words == [
        f"members ({given['member'].sum()})",
        f"decoys, not trained on ({(~given['member']).sum()})",
        "the query itself, as a track",
    ]
    kinds = (given["member"], ~given["member"])
    for (values, edges, weights), chosen in zip(histograms, kinds, strict=True):
        np.testing.assert_array_equal(values, given["score"][chosen])
        assert weights.sum() == pytest.approx(1.0)
        assert np.histogram(values, edges)[0].sum() == chosen.sum()  # none falls out of the bins
    low, high = axes.get_xlim()
    assert low < given["score"].min() < given["score"].max() < high
    assert "track 4" in axes.get_title()
    assert axes.lines[-1].get_xdata()[0] == given["score"][4]


@pytest.mark.parametrize("seed", range(5))
def test_no_track_falls_out_of_the_bins(tmp_path, histograms, seed):
    score = np.random.default_rng(seed).standard_normal(N) ** 5 * 1e-4
    figures.distribution(tmp_path / "x.png", columns() | {"score": score}, "none")
    for values, edges, _ in histograms:
        assert np.histogram(values, edges)[0].sum() == len(values)


def test_the_highest_tracks_with_their_errors(tmp_path, drawn):
    given = columns()
    figures.top(tmp_path / "x.png", given, "track 4")
    axes, words = text_of(drawn[0])
    assert words == [
        "± 1 standard error, from the sweep's draws",
        "member",
        "decoy, not trained on",
    ]
    assert axes.get_title() == "The 30 highest scores for query track 4"
    (bars,) = axes.collections
    ends = np.array([[segment[0, 0], segment[1, 0]] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends.mean(1), given["score"][:30])
    np.testing.assert_allclose(np.ptp(ends, axis=1), 0.4)
    for line, chosen, face in zip(
        axes.lines, (given["member"], ~given["member"]), ("0.0", "1.0"), strict=True
    ):
        np.testing.assert_array_equal(line.get_xdata(), given["score"][:30][chosen[:30]])
        np.testing.assert_array_equal(line.get_ydata(), np.flatnonzero(chosen[:30]))
        assert to_rgba(line.get_markerfacecolor()) == to_rgba(face)
    names = [t.get_text() for t in axes.get_yticklabels()]
    assert names[3:6] == ["track 3", "the query itself: track 4", "track 5"]


@pytest.mark.parametrize(
    "score", [np.zeros(5), np.full(5, 7.0), np.array([3.0, 2, 1, np.nan, np.nan]), -np.arange(5.0)]
)
def test_odd_scores_can_be_drawn(tmp_path, score):
    given = columns(5) | {"score": score}
    figures.distribution(tmp_path / "a.png", given, "track 1")
    figures.top(tmp_path / "b.png", given, "a name with $x_1$ that goes on far beyond the margin")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("unit", "low", "high", "wanted"),
    [
        (7e-5, -1e-3, 1e-2, [-0.001, -0.0001, 0, 0.0001, 0.001, 0.01]),
        (1.0, 0.5, 40.0, [1, 2, 5, 10, 20]),
    ],
)
def test_ticks_of_a_wide_axis_are_round_numbers(unit, low, high, wanted):
    axes = Figure().subplots()
    figures._score_axis(axes, unit, low, high)
    assert axes.get_xscale() == "asinh"
    np.testing.assert_allclose(axes.get_xticks(), wanted, atol=1e-12)
    assert [float(t.get_text()) for t in axes.get_xticklabels()] == pytest.approx(wanted)


def test_scores_that_lie_close_together_have_a_linear_axis(tmp_path, drawn, histograms):
    score = np.linspace(0.06, 0.04, N)
    figures.distribution(tmp_path / "x.png", columns() | {"score": score}, "none")
    axes, _ = text_of(drawn[0])
    assert axes.get_xscale() == "linear"
    low, high = axes.get_xlim()
    assert 0.039 < low < 0.04 < 0.06 < high < 0.061
    np.testing.assert_allclose(np.diff(histograms[0][1]), 0.02 / 40)


def test_nothing_to_draw(tmp_path):
    with pytest.raises(InputError, match="no track has a score"):
        figures.top(tmp_path / "x.png", columns(3) | {"score": np.full(3, np.nan)}, "q")
    assert list(tmp_path.iterdir()) == []
