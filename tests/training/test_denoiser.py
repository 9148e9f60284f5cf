import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tda_jax.diffusion.schedules import alpha_sigma, schedule_from_config
from tda_jax.errors import InputError
from tda_jax.examples import Example
from tda_jax.training import denoiser, loop
from tda_jax.training.denoiser import fit
from tda_jax.training.loop import Recipe

SCHEDULE = schedule_from_config({"num_train_timesteps": 40}, "here")
N, SHAPE = 6, (3, 2)


def predict(params, x_t, t, condition):
    """The noise, if the latent is known to be row `condition` of the parameters."""
    alpha, sigma = alpha_sigma(SCHEDULE, t, x_t.dtype)
    return (x_t - alpha * params["latents"][condition]) / sigma


def start():
    return {"latents": jnp.zeros((N, *SHAPE), jnp.float32)}


def examples():
    latents = np.random.default_rng(0).normal(size=(N, *SHAPE)).astype(np.float32)
    return Example(latents, np.arange(N, dtype=np.int32), np.ones((N, SHAPE[0]), np.float32))


def run(steps=40, batch=4, rate=0.1, seed=0, data=None, **rest):
    data = examples() if data is None else data
    return fit(predict, SCHEDULE, start(), data, Recipe(steps, batch, rate, seed), **rest)


def test_a_model_that_can_learn_the_tracks_by_heart_does():
    result = run(600)
    np.testing.assert_allclose(result.params["latents"], examples().latent, atol=0.02)
    assert result.losses.shape == (600,)
    assert result.losses[-1] < 1e-3 < 0.1 < result.losses[0]


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    first, again, other = run(), run(), run(seed=1)
    np.testing.assert_array_equal(first.params["latents"], again.params["latents"])
    np.testing.assert_array_equal(first.losses, again.losses)
    assert not np.array_equal(first.losses, other.losses)


def test_padding_is_trained_on():
    masked = examples()._replace(mask=np.zeros((N, SHAPE[0]), np.float32))
    np.testing.assert_array_equal(run(data=masked).losses, run().losses)


def test_the_given_parameters_stay():
    params = start()
    fit(predict, SCHEDULE, params, examples(), Recipe(3, 4, 0.1, 0))
    assert float(jnp.abs(params["latents"]).sum()) == 0.0  # and not deleted by donation


def test_the_callback_gets_the_averages_of_its_steps():
    seen = {}
    result = run(20, callback=seen.__setitem__, callback_steps=(3, 20, 7))
    assert list(seen) == [3, 7, 20]
    np.testing.assert_array_equal(seen[20]["latents"], result.params["latents"])
    assert not np.array_equal(seen[3]["latents"], seen[7]["latents"])  # kept, not overwritten
    np.testing.assert_array_equal(run(20).losses, result.losses)


def test_a_model_without_a_condition():
    data = examples()._replace(condition=None)
    latent = data.latent.copy()
    latent[:] = latent[0]

    def same(params, x_t, t, condition):
        return predict(params, x_t, t, 0)

    result = fit(same, SCHEDULE, start(), data._replace(latent=latent), Recipe(600, 4, 0.1, 0))
    np.testing.assert_allclose(result.params["latents"][0], latent[0], atol=1e-3)
    assert not np.any(result.params["latents"][1:])


@pytest.mark.parametrize(("n", "batch"), [(6, 4), (5, 5), (7, 2), (3, 1)])
def test_each_epoch_has_every_track_once(n, batch):
    order = loop._order(jax.random.key(0), n, batch)
    rows = np.concatenate([order(step) for step in range(4 * n)])  # 4 · batch epochs
    epochs = rows.reshape(4 * batch, n)
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


TRACKS = np.array([8, 2, 8, 5, 8, 2])  # three tracks, of 3, 2 and 1 units


def drawn(monkeypatch, steps, batch, seed=0, tracks=TRACKS):
    """The rows that `fit` would train on at each step, (steps, batch); and its number of tracks."""
    seen = []

    def train(loss, params, rows, n, recipe, *rest):
        order = loop._order(jax.random.key(1), n, batch)
        found = [rows(step, order(step))[1] for step in range(steps)]
        np.testing.assert_array_equal(rows(steps // 2, order(steps // 2))[1], found[steps // 2])
        seen.append((np.array(found), n))
        return loop.Trained(params, np.zeros(0, np.float32))

    with monkeypatch.context() as patch:
        patch.setattr(denoiser.loop, "train", train)
        run(steps, batch, seed=seed, tracks=tracks)
    return seen[0]


def test_each_epoch_has_every_track_once_by_one_of_its_units(monkeypatch):
    rows, n = drawn(monkeypatch, 4200, 2)  # an epoch is a batch and a half
    assert n == 3
    epochs = TRACKS[rows].reshape(-1, 3)
    assert (np.sort(epochs, axis=1) == [2, 5, 8]).all()
    used, times = np.bincount(rows.reshape(-1), minlength=N), len(epochs)
    for track in (2, 5, 8):
        units = np.flatnonzero(track == TRACKS)
        assert used[units].sum() == times
        share = 1 / len(units)
        error = np.sqrt(times * share * (1 - share))
        assert np.abs(used[units] - times * share).max() <= 4 * error


def test_units_are_drawn_anew_by_seed_and_step_alone(monkeypatch):
    rows, _ = drawn(monkeypatch, 60, 3)
    np.testing.assert_array_equal(drawn(monkeypatch, 60, 3)[0], rows)
    np.testing.assert_array_equal(drawn(monkeypatch, 30, 3)[0], rows[:30])  # steps on their own
    assert len({tuple(sorted(step)) for step in rows.tolist()}) == 3 * 2
    other, _ = drawn(monkeypatch, 60, 3, seed=1)
    np.testing.assert_array_equal(TRACKS[other], TRACKS[rows])  # the loop alone orders tracks
    assert (other != rows).any()


@pytest.mark.parametrize("tracks", [np.arange(N), np.array([4, 9, 0, 7, 1, 3])])
def test_tracks_of_one_unit_are_trained_on_as_they_were(tracks):
    plain, got = run(), run(tracks=tracks)
    np.testing.assert_array_equal(got.losses, plain.losses)
    np.testing.assert_array_equal(got.params["latents"], plain.params["latents"])


def test_a_track_of_many_units_pulls_no_more_than_another():
    """One latent for all: it comes to lie between the tracks, not by the most units."""
    latent = np.ones((N, *SHAPE), np.float32)
    latent[5] = -1

    def same(params, x_t, t, condition):
        return predict(params, x_t, t, 0)

    data, recipe = examples()._replace(latent=latent), Recipe(600, 2, 0.02, 0)
    two, six = (
        fit(same, SCHEDULE, start(), data, recipe, tracks=tracks).params["latents"][0]
        for tracks in (np.array([0, 0, 0, 0, 0, 1]), None)
    )
    assert np.abs(two).max() < 0.25 < 0.5 < six.min()


def test_tracks_that_are_not_of_the_examples_are_refused():
    with pytest.raises(InputError, match="batch = 4 of 3 examples; give 1 to 3"):
        run(tracks=TRACKS)
    with pytest.raises(InputError, match=r"tracks of the shape \(5,\) for 6 examples"):
        run(tracks=TRACKS[:5])


def test_a_share_of_the_conditions_is_dropped_and_no_other():
    given = (jnp.arange(1.0, 4001.0), jnp.ones((4000, 2, 3)))
    empty = (np.float32(0.0), np.zeros((2, 3), np.float32))
    got = denoiser._dropped(jax.random.key(0), given, denoiser.Dropout(empty, 0.1))
    dropped = np.asarray(got[0]) == 0
    assert abs(dropped.mean() - 0.1) < 4 * np.sqrt(0.09 / 4000)
    np.testing.assert_array_equal(got[0], np.where(dropped, 0, given[0]))
    np.testing.assert_array_equal(got[1].any((1, 2)), ~dropped)  # all parts of one together
    for rate, kept in ((0.0, True), (1.0, False)):
        all_or_none = denoiser._dropped(jax.random.key(1), given, denoiser.Dropout(empty, rate))
        assert np.all((np.asarray(all_or_none[0]) > 0) == kept)


def test_dropping_nothing_changes_nothing():
    none = denoiser.Dropout(np.int32(0), 0.0)
    np.testing.assert_array_equal(run(dropout=none).losses, run().losses)
    always = denoiser.Dropout(np.int32(0), 1.0)
    assert not np.array_equal(run(dropout=always).losses, run().losses)


def test_timesteps_are_one_from_each_range():
    drawn = collections.Counter()
    for seed in range(500):
        t = np.asarray(denoiser._timesteps(jax.random.key(seed), 4, 10))
        ranges = [(0, 2), (2, 4), (5, 7), (7, 9)]  # 2.5 wide: 2 and 7 are shared
        assert all(low <= x <= high for x, (low, high) in zip(t, ranges, strict=True))
        drawn.update(t.tolist())
    assert set(drawn) == set(range(10))
    assert max(abs(count - 200) for count in drawn.values()) < 60


def test_the_average_is_a_plain_loop():
    values = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    average, expected = {"x": jnp.float32(5.0)}, 5.0
    for step, value in enumerate(values):
        average = loop._average(average, {"x": jnp.float32(value)}, jnp.int32(step))
        decay = min(0.99, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * float(value)
    assert float(average["x"]) == pytest.approx(expected, abs=1e-5)


def test_a_loss_that_is_lost_is_told():
    data = examples()
    data.latent[:] = 1e30  # its square is infinite in float32
    with pytest.raises(InputError, match="nan or infinite at update 1; lower the learning rate"):
        run(3, data=data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"batch": 7}, "batch = 7 of 6 examples; give 1 to 6"),
        ({"batch": 0}, "batch = 0 of 6 examples"),
        ({"rate": 0.0}, "learning_rate = 0.0"),
        ({"rate": float("nan")}, "learning_rate = nan"),
        ({"callback_steps": (0, 5, 99)}, r"callback_steps \[0, 99\] are outside 1 .. 40"),
    ],
)
def test_numbers_that_train_nothing_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        run(**change)
