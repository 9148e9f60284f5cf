"""Draws are a function of (seed, purpose, track id, draw) and of nothing else."""

import hashlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tda_jax import keys
from tda_jax.errors import InputError

T = 1000


def times(strata, timesteps, draws, track="a", seed=0):
    root, words = keys.root(seed, keys.Domain.SWEEP), keys.track_words([track])[0]

    def one(d):
        return keys.timestep_and_noise(root, words, d, strata, timesteps, (1, 1))[0]

    return np.asarray(jax.jit(jax.vmap(one))(np.arange(draws, dtype=np.int32)))


def test_words_are_the_first_eight_bytes_of_sha256():
    digest = hashlib.sha256("trk é".encode()).digest()
    high, low = keys.track_words(["x", "trk é"])[1]
    assert (int(high) << 32) + int(low) == int.from_bytes(digest[:8], "big")


def test_the_same_draw_is_the_same_mapped_or_not():
    root, words = keys.root(7, keys.Domain.SWEEP), keys.track_words(["a", "b", "c"])

    def one(w, d):
        return keys.timestep_and_noise(root, w, d, 10, T, (4, 2, 3))

    mapped = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(
        words, np.arange(20, dtype=np.int32)
    )
    for i, d in [(0, 0), (1, 7), (2, 19)]:
        t, noise = one(words[i], d)
        assert int(t) == int(mapped[0][i, d])
        np.testing.assert_array_equal(noise, mapped[1][i, d])


def test_frozen_values():
    """Stored scores depend on these numbers: a change of them is a change of every score."""
    root, words = keys.root(2**40 + 5, keys.Domain.FISHER), keys.track_words(["track 1"])[0]
    t, noise = keys.timestep_and_noise(root, words, 13, 10, T, (2, 1, 2))
    assert root.tolist() == FROZEN_ROOT
    assert int(t) == FROZEN_TIME
    np.testing.assert_allclose(noise.ravel(), FROZEN_NOISE, rtol=1e-6)


def test_seed_purpose_track_and_draw_all_matter():
    seen = set()
    for seed, domain, track, draw in itertools.product(
        [0, 1, 2**32], [keys.Domain.SWEEP, keys.Domain.QUERY], ["a", "b"], [0, 1]
    ):
        words = keys.track_words([track])[0]
        key = keys.draw_key(keys.root(seed, domain), words, draw)
        seen.add(np.asarray(jax.random.key_data(key)).tobytes())
    assert len(seen) == 3 * 2 * 2 * 2


def test_noise_of_a_frame_does_not_depend_on_padding():
    key = keys.draw_key(keys.root(0, keys.Domain.SWEEP), keys.track_words(["a"])[0], 3)
    short, long = keys.draw_noise(key, (5, 2, 3)), keys.draw_noise(key, (9, 2, 3))
    np.testing.assert_array_equal(short, long[:5])
    assert not np.array_equal(long[0], long[1])


def test_noise_is_standard_normal():
    key = keys.draw_key(keys.root(0, keys.Domain.SWEEP), keys.track_words(["a"])[0], 0)
    noise = np.asarray(keys.draw_noise(key, (256, 16, 8)), np.float64)
    n = noise.size
    assert abs(noise.mean()) < 4 / np.sqrt(n)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((noise[1:] * noise[:-1]).mean()) < 4 / np.sqrt(n)  # frames are independent
    assert abs((noise**4).mean() - 3) < 4 * np.sqrt(96 / n)


@pytest.mark.parametrize("setting", [True, False])
def test_draws_do_not_depend_on_a_setting_of_jax(setting):
    root, words = keys.root(0, keys.Domain.SWEEP), keys.track_words(["a"])[0]
    for draw in range(8):
        wanted = keys.timestep_and_noise(root, words, draw, 10, T, (3, 2, 2))
        with jax.threefry_partitionable(setting):
            got = keys.timestep_and_noise(root, words, draw, 10, T, (3, 2, 2))
        np.testing.assert_array_equal(got[0], wanted[0])
        np.testing.assert_array_equal(got[1], wanted[1])


def test_draws_are_the_same_under_x64():
    root, words = keys.root(0, keys.Domain.SWEEP), keys.track_words(["a"])[0]
    t, noise = keys.timestep_and_noise(root, words, 3, 10, T, (3, 2))
    with jax.enable_x64(True):
        t64, noise64 = keys.timestep_and_noise(root, words, 3, 10, T, (3, 2))
    assert noise64.dtype == jnp.float32
    assert int(t) == int(t64)
    np.testing.assert_array_equal(noise, noise64)


@settings(max_examples=30, deadline=None)
@given(strata=st.integers(1, 300), timesteps=st.integers(1, 1200), seed=st.integers(0, 2**64 - 1))
def test_a_timestep_lies_in_its_stratum(strata, timesteps, seed):
    draws = 64
    stratum = np.arange(draws) % strata
    got = times(strata, timesteps, draws, seed=seed)
    assert (got >= stratum * timesteps // strata).all()
    assert (got <= -(-(stratum + 1) * timesteps // strata) - 1).all()


@pytest.mark.parametrize(("strata", "timesteps"), [(10, 1000), (7, 10), (30, 10), (256, 1000)])
def test_every_timestep_is_equally_likely(strata, timesteps):
    """Also where the strata do not divide the schedule. Chi-squared with 5 standard deviations."""
    counts = np.zeros(timesteps)
    draws = strata * max(1, 40_000 // strata)
    counts += np.bincount(times(strata, timesteps, draws), minlength=timesteps)
    expected = draws / timesteps
    chi = ((counts - expected) ** 2 / expected).sum()
    # Stratified counts vary less than independent ones, never more.
    assert chi < timesteps - 1 + 5 * np.sqrt(2 * timesteps)
    assert counts.min() > 0


def test_bins():
    assert keys.bin_of(20).tolist() == [i // 2 for i in range(20)]
    with pytest.raises(InputError, match="multiple of 10"):
        keys.bin_of(15)


def test_a_subset_depends_on_the_set_and_not_on_its_order():
    ids = [f"t{i}" for i in range(50)]
    chosen = keys.subset(ids, 10, seed=3)
    assert len(set(chosen)) == 10
    assert keys.subset(ids[::-1], 10, seed=3) == chosen
    assert keys.subset(ids, 10, seed=4) != chosen
    assert keys.subset(ids, 11, seed=3)[:10] == chosen
    with pytest.raises(InputError, match="51 of 50"):
        keys.subset(ids, 51, seed=3)


def test_a_seed_out_of_range_is_refused():
    with pytest.raises(InputError, match="seed = -1"):
        keys.root(-1, keys.Domain.SWEEP)


FROZEN_ROOT = [2898436237, 3524576905]
FROZEN_TIME = 357
FROZEN_NOISE = [-2.0286343097686768, -0.6480187773704529, -1.230428695678711, -0.3812847137451172]
