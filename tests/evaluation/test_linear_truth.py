"""A metric that cannot fail is no metric: the truth is known in closed form, and so are lies.

Ridge regression on half of the tracks stands for the retrained models. What a track does to a
query's loss, its leave-one-out change, is exact, and strong regularisation lets the changes add up.
"""

import numpy as np
import pytest

from tda_jax.evaluation.comparison import compare
from tda_jax.evaluation.datamodelling import lds, predicted

TRACKS, FEATURES, QUERIES, SUBSETS, LIES = 60, 8, 12, 64, 20
RIDGE = 400.0
NOISE = 0.5  # of a training seed, in standard deviations of the loss over the subsets


def fitted(x, y):
    """The inverse of the regularised Gram matrix, and the coefficients."""
    inverse = np.linalg.inv(x.T @ x + RIDGE * np.eye(FEATURES))
    return inverse, inverse @ x.T @ y


def leave_one_out(x, y, asked, answer):
    """How far each query's loss rises without each track (Q, n): Sherman-Morrison, no refit."""
    inverse, theta = fitted(x, y)
    lever = np.einsum("nf,fg,ng->n", x, inverse, x)
    without = theta - (inverse @ x.T * ((y - x @ theta) / (1 - lever))).T
    return ((answer[:, None] - asked @ without.T) ** 2) - ((answer - asked @ theta) ** 2)[:, None]


def problem(seed=0):
    """Tracks (x, y), queries, the subsets kept, their losses (S, Q) and those of 2 seeds."""
    rng = np.random.default_rng(seed)
    x, asked = rng.normal(size=(TRACKS, FEATURES)), rng.normal(size=(QUERIES, FEATURES))
    truth = rng.normal(size=FEATURES)
    y, answer = (z @ truth + rng.normal(size=len(z)) for z in (x, asked))
    kept = np.array([rng.permutation(TRACKS) < TRACKS // 2 for _ in range(SUBSETS)])
    losses = np.array([(answer - asked @ fitted(x[k], y[k])[1]) ** 2 for k in kept])
    noise = NOISE * losses.std(axis=0) * rng.normal(size=(2, SUBSETS, QUERIES))
    return x, y, asked, answer, kept, losses, losses + noise


X, Y, ASKED, ANSWER, KEPT, CLEAN, LOSSES = problem()
TRUE = leave_one_out(X, Y, ASKED, ANSWER)
ALIKE = np.zeros(len(TRUE), int)
MOVED = np.random.default_rng(1)
SCRAMBLED = {
    f"scrambled {i}": np.array([row[MOVED.permutation(TRACKS)] for row in TRUE])
    for i in range(LIES)
}
METHODS = {"true": TRUE, "affine": 3 * TRUE + 1, "flipped": -TRUE, **SCRAMBLED}
NOTHING = np.empty((0, QUERIES, TRACKS))


@pytest.fixture(scope="module")
def held():
    """All methods beside each other, with a scrambled covariate and with the truth as one."""
    names, scores = list(METHODS), np.stack(list(METHODS.values()))
    lie = MOVED.permuted(TRUE, axis=1)[None]
    plain, top = compare(names, scores, KEPT, LOSSES, lie, "true", ALIKE)
    given, _ = compare(names, scores, KEPT, LOSSES, TRUE[None], "true", ALIKE)
    return {r.method: r for r in plain}, {r.method: r for r in given}, top


def test_the_closed_form_is_that_of_refits():
    for i in (0, 17, 59):
        rows = np.arange(TRACKS) != i
        losses = [(ANSWER - ASKED @ fitted(X[r], Y[r])[1]) ** 2 for r in (rows, rows | True)]
        np.testing.assert_allclose(TRUE[:, i], losses[0] - losses[1], atol=1e-12)


def test_changes_add_up_in_this_regime():
    told = predicted(TRUE[None], KEPT)
    assert lds(told, CLEAN).mean() > 0.95


def test_the_truth_reaches_the_ceiling(held):
    plain, _, top = held
    true = plain["true"]
    assert 0.6 < top.low < top.mean < top.high < 0.97
    assert true.lds.low > 0.6
    assert true.lds.low <= top.high
    assert true.lds.high >= top.low
    assert true.lds.low < top.mean < true.lds.high + 0.02
    assert true.share == pytest.approx(1.0, abs=0.05)
    assert true.behind[:3] == (0.0, 0.0, 0.0)


def test_scrambled_scores_tell_nothing(held):
    plain, _, _ = held
    rows = [plain[name] for name in SCRAMBLED]
    covered = [row.lds.low < 0 < row.lds.high for row in rows]
    assert np.mean(covered) >= 0.85
    assert np.mean([row.lds.mean for row in rows]) == pytest.approx(0.0, abs=0.05)
    assert max(row.lds.high for row in rows) < plain["true"].lds.low
    assert all(row.behind.low > 0.4 for row in rows)
    assert max(abs(row.share) for row in rows) < 0.4


def test_flipped_scores_are_below_nothing(held):
    plain, _, _ = held
    assert plain["flipped"].lds.high < -0.6
    assert plain["flipped"].lds.mean == pytest.approx(-plain["true"].lds.mean)
    assert plain["flipped"].behind.low > 1.2


def test_the_truth_tells_nothing_beyond_itself_and_all_beyond_a_lie(held):
    plain, given, _ = held
    assert plain["true"].partial.mean == pytest.approx(plain["true"].lds.mean, abs=0.03)
    for name in ("true", "affine", "flipped"):
        assert np.isnan(given[name].partial.mean)
        assert given[name].partial.count == 0
        assert given[name].lds == plain[name].lds


def test_a_rough_copy_of_the_covariate_tells_little_beyond_it():
    rough = np.cbrt(TRUE / TRUE.std(axis=1, keepdims=True))
    (row,), _ = compare(["rough"], rough[None], KEPT, LOSSES, TRUE[None], "rough", ALIKE)
    assert row.lds.low > 0.4
    assert row.partial.low < 0 < row.partial.high
    # The other way about, the truth still tells what the rough copy does not.
    (row,), _ = compare(["true"], TRUE[None], KEPT, LOSSES, rough[None], "true", ALIKE)
    assert row.partial.low > 0.1
