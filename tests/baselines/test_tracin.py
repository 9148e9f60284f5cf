import numpy as np
import pytest

from tda_jax import examples, keys
from tda_jax.baselines.contract import Passes
from tda_jax.baselines.tracin import tracin
from tda_jax.errors import InputError
from tests.baselines import linear, methods

COLUMNS = {"transformer": slice(2, 5), "all": slice(0, 5)}


def scores(corpus, queries, groups=("transformer", "all"), of=None):
    method = tracin(keys.Draws(1, 4), keys.Draws(1, 6), groups)
    task = linear.task(corpus, of=of)
    return method.score(task, method.prepare(task), queries)


def test_products_and_cosines_are_those_of_gradients():
    corpus, queries = linear.corpus(), linear.corpus(3, 1, "query")
    found = scores(corpus, queries)
    assert list(found) == ["dot transformer", "cosine transformer", "dot all", "cosine all"]
    x, y = linear.gradients(queries), linear.gradients(corpus)
    for group, columns in COLUMNS.items():
        for q in range(3):
            for i in range(linear.N):
                a, b = x[q, columns], y[i, columns]
                dot = sum(u * v for u, v in zip(a, b, strict=True))
                size = (sum(u * u for u in a) * sum(v * v for v in b)) ** 0.5
                assert found[f"dot {group}"][q, i] == pytest.approx(dot, rel=1e-4, abs=1e-5)
                cosine = found[f"cosine {group}"][q, i]
                assert cosine == pytest.approx(dot / size, rel=1e-4, abs=1e-5)


def test_padding_counts_in_tracks_and_not_in_queries():
    """The latent's mean is the target at every element, so that only a mask's zeros could tell."""
    corpus, queries = linear.corpus(), linear.corpus(2, 1, "query")
    plain = scores(corpus, queries)

    def terms(params, example, t, noise):  # the target of a frame is that frame
        got = linear.terms(params, example, t, noise)
        return got._replace(target=example.latent)

    half = corpus.examples.mask.copy()
    half[:, 2:] = 0
    masked = corpus._replace(examples=corpus.examples._replace(mask=half))
    of = linear.model()._replace(terms=terms)
    np.testing.assert_allclose(
        scores(masked, queries, of=of)["dot all"], plain["dot all"], rtol=1e-3, atol=1e-5
    )
    asked = queries._replace(
        examples=queries.examples._replace(mask=half[:2]),
    )
    first = queries._replace(
        examples=queries.examples._replace(
            latent=queries.examples.latent[:, :2], mask=queries.examples.mask[:, :2]
        )
    )
    np.testing.assert_allclose(
        scores(corpus, asked, of=of)["dot all"], scores(corpus, first)["dot all"], rtol=1e-3
    )


def test_a_gradient_of_zero_has_no_cosine_and_a_product_of_zero():
    corpus, queries = linear.corpus(), linear.corpus(2, 1, "query")
    queries.examples.condition[0] = 0.0
    corpus.examples.condition[3] = 0.0
    found = scores(corpus, queries)
    assert np.isnan(found["cosine all"][0]).all()
    assert np.isnan(found["cosine all"][:, 3]).all()
    assert np.isfinite(found["cosine all"][1, :3]).all()
    assert (found["dot all"][0] == 0).all()


def test_a_duplicate_of_a_member_supports_itself_most():
    corpus = linear.corpus()
    for i in (0, 5):
        copy = examples.take(corpus, [i])._replace(ids=("a copy",))
        assert scores(corpus, copy)["cosine all"][0].argmax() == i
        assert scores(corpus, copy)["cosine all"][0, i] == pytest.approx(1, abs=1e-5)


def test_a_query_that_is_a_track_never_meets_its_noise_again():
    made = tracin(methods.DRAWS, methods.DRAWS)
    task = methods.task()
    itself = examples.take(task.corpus, [1])
    assert itself.examples.mask.all()  # its loss is the same, padding or not
    assert made.score(task, made.prepare(task), itself)["cosine all"][0, 1] < 0.999


def test_a_track_that_errs_the_other_way_has_a_negative_score():
    corpus = linear.corpus()
    copy = examples.take(corpus, [0])
    opposite = copy.examples._replace(condition=-copy.examples.condition)
    # θ · φ changes its sign with φ: so that the residual keeps it, the target changes, too.
    opposite = opposite._replace(latent=opposite.latent - 4)
    flipped = copy._replace(ids=("opposite",), examples=opposite)
    wanted = linear.gradients(flipped) @ linear.gradients(copy).T
    found = scores(corpus, flipped)["dot all"][0, 0]
    assert found == pytest.approx(wanted.item(), rel=1e-3)
    assert np.sign(found) == np.sign(wanted)


def test_passes_and_refusals():
    corpus = linear.corpus()
    task = linear.task(corpus)
    method = tracin(keys.Draws(2, 10), keys.Draws(3, 10))
    assert method.passes(task) == Passes(3 * 20 * linear.N, 3 * 30)
    with pytest.raises(InputError, match="no parameter group 'mlp'"):
        tracin(groups=("mlp",)).prepare(task)
    still = linear.corpus()
    still.examples.condition[:, 2:] = 0.0
    with pytest.raises(InputError, match="the group 'transformer' are zero for all 8 tracks"):
        tracin().prepare(linear.task(still))
