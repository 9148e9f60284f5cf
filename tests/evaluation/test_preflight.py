"""The checks before hours are spent: what each says of corpora that fit, and that do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tda_jax import devices, keys
from tda_jax.attribution.units import tracks_of
from tda_jax.evaluation import preflight
from tda_jax.evaluation.preflight import Losses
from tda_jax.examples import corpus_of
from tda_jax.models.denoiser import Condition
from tests.attribution import tiny

RNG = np.random.default_rng(0)
N = 24


def corpus(scale=1.0, frames=None):
    latents = scale * RNG.standard_normal((N, 8, 3, 2)).astype(np.float32)
    valid = np.full(N, 8) if frames is None else np.asarray(frames)
    masks = np.arange(8)[None] < valid[:, None]
    members = np.arange(N) < N // 2
    return corpus_of([f"t{i:02d}" for i in range(N)], latents, None, masks, members)


def losses(conditioned=0.1, members=-0.3, level=0.2):
    base = level + 0.02 * RNG.standard_normal(N) + members * level * (np.arange(N) < N // 2)
    return Losses(base, base + conditioned * base, np.ones(N))


def passed(found):
    return {check.name: check.passed for check in found}


SPECTRUM = RNG.standard_normal(16)
HEARD = [np.stack([SPECTRUM, np.ones(16)])] * 2
DECODED = [SPECTRUM + 0.1 * RNG.standard_normal((40, 16)) for _ in range(2)]


def test_what_fits_passes():
    found = preflight.checks(corpus(), losses(), DECODED, HEARD)
    assert set(passed(found).values()) == {True}
    assert preflight.verdict(found) == (
        True,
        "Checkpoint, corpus, scaling and conditions fit each other.",
    )


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"found": losses(level=1.4)}, "the checkpoint denoises these latents", False),
        ({"found": losses(conditioned=-0.1)}, "captions fit their tracks", False),
        ({"found": losses(conditioned=0.0)}, "captions fit their tracks", None),
        ({"found": losses(members=0.3)}, "members are known better than non-members", False),
        ({"found": losses(members=0.0)}, "members are known better than non-members", None),
        ({"corpus": corpus(0.18)}, "latents have the network's scale", False),
        (
            {"corpus": corpus(frames=np.where(np.arange(N) < N // 2, 8, 3))},
            "members and non-members are as long",
            False,
        ),
        ({"decoded": [x[:, ::-1] for x in DECODED]}, "the VAE gives back what was encoded", False),
        (
            {"decoded": [DECODED[0], np.full((4, 16), np.nan)]},
            "the VAE gives back what was encoded",
            False,
        ),
        ({"decoded": []}, "the VAE gives back what was encoded", None),
        ({"heard": []}, "the VAE gives back what was encoded", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_thing_that_is_wrong_is_named(given, name, expected):
    usual = {"corpus": corpus(), "found": losses(), "decoded": DECODED, "heard": HEARD}
    found = preflight.checks(*(usual | given).values())
    assert {n: p for n, p in passed(found).items() if p is not True} == {name: expected}
    fits, words = preflight.verdict(found)
    assert fits is (expected is None)
    assert name in words


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12))
def test_each_track_gets_a_condition_of_another(kinds):
    condition = Condition(np.array(kinds, np.float32)[:, None])
    found = preflight.others(condition)
    assert sorted(found) == list(range(len(kinds)))
    most = max(kinds.count(kind) for kind in kinds)
    if 2 * most <= len(kinds):
        assert all(kinds[i] != kinds[j] for i, j in enumerate(found))


def test_members_and_decoys_are_chosen_by_id_alone():
    given = corpus()
    few = preflight.chosen(given, tracks_of(given), 5, 0)
    assert (few.members.sum(), (~few.members).sum()) == (5, 5)
    turned = corpus_of(given.ids[::-1], given.examples.latent[::-1], members=given.members[::-1])
    assert preflight.chosen(turned, tracks_of(turned), 5, 0).ids == few.ids
    assert preflight.chosen(given, tracks_of(given), 5, 1).ids != few.ids


def test_losses_are_those_of_a_plain_loop():
    model, given = tiny.model(dtype=np.float32), tiny.corpus(6, dtype=np.float32)
    draws, used = keys.Draws(1, 4), devices.local_devices(1)
    found = preflight.losses(model, given, draws, 0, 4, used, lambda *_: None)
    other = preflight.others(given.examples.condition)
    wanted = np.zeros((3, 6))
    for i, name in enumerate(given.ids):
        row, mask = tiny.row(given, i), given.examples.mask[i]
        for d in range(4):
            t, noise = tiny.draw(0, keys.Domain.SWEEP, name, d, 4, np.float32)
            for k, text in enumerate((row.condition, given.examples.condition[other[i]], None)):
                predicted = 0.0
                if text is not None:
                    predicted = tiny.predict_plainly(model.params, row.latent, text, t, noise)
                squared = np.square(predicted - noise).mean(axis=(1, 2))
                wanted[k, i] += (squared * mask).sum() / mask.sum() / 4
    np.testing.assert_allclose(np.stack(found), wanted, rtol=1e-5)
    assert np.abs(found.own - found.other).min() > 1e-6
