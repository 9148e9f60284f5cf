"""The random draws of a track: a function of (seed, purpose, track id, draw index) alone.

Neither batch size nor device count, host count or order can change them. The generator is
threefry-2x32, named here, so that a changed default of JAX changes no score.
"""

import enum
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from tda_jax.errors import InputError

BINS = 10  # ranges of the schedule that scores are kept apart for


class Domain(enum.IntEnum):
    """What a draw is for. A query that is a training track never meets its own noise again."""

    TRAINING = 1
    FISHER = 2
    QUERY = 3
    SWEEP = 4
    GENERATION = 5
    CALIBRATION = 6
    SUBSET = 7
    SIGNS = 8
    OUTCOME = 9
    PROBE = 10
    PROJECTION = 11
    RETAIN = 12


class Draws(NamedTuple):
    """Draws of (timestep, noise) for one track: R replicates of S strata of the schedule.

    Draw d belongs to replicate d // S and stratum d % S. Within its stratum each timestep is
    drawn on its own, so replicates are independent and every timestep is equally likely.
    """

    replicates: int
    strata: int

    @property
    def count(self) -> int:
        """How many draws a track has."""
        return self.replicates * self.strata


Root = UInt32[Array, " 2"] | UInt32[np.ndarray, " 2"]
Words = UInt32[Array, " 2"] | UInt32[np.ndarray, " 2"]


def track_words(ids: Sequence[str]) -> UInt32[np.ndarray, "n 2"]:
    """A stable 64-bit hash of each id, as two words: the first 8 bytes of its SHA-256."""
    digests = [hashlib.sha256(i.encode()).digest()[:8] for i in ids]
    return np.frombuffer(b"".join(digests), ">u4").astype(np.uint32).reshape(-1, 2)


def root(seed: int, domain: Domain) -> UInt32[np.ndarray, " 2"]:
    """The key of a purpose, as words that travel to any device.

    Raises:
        InputError: the seed is not in 0 .. 2^64 - 1.
    """
    if not 0 <= seed < 2**64:
        raise InputError(f"seed = {seed} is out of range; give a whole number in 0 .. 2^64 - 1")
    with jax.ensure_compile_time_eval():  # a constant, also where it is asked for in a trace
        key = jax.random.key(int(domain), impl="threefry2x32")
        for word in (seed >> 32, seed & 0xFFFFFFFF):
            key = jax.random.fold_in(key, np.uint32(word))
        return np.asarray(jax.random.key_data(key))


def draw_key(root: Root, words: Words, draw: Int[Array, ""] | int) -> Array:
    """The key of one draw of one track."""
    key = jax.random.wrap_key_data(jnp.asarray(root), impl="threefry2x32")
    key = jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])
    return jax.random.fold_in(key, draw)


def draw_timestep(key: Array, stratum: Int[Array, ""] | int, strata: int, timesteps: int) -> Array:
    """A timestep of a stratum: floor((stratum + u) * timesteps / strata), u uniform in [0, 1).

    Over all strata every timestep is equally likely, whether or not their number divides the
    schedule. The whole part is integer arithmetic, since float32 cannot tell 9.99999997 from 10.
    """
    with jax.threefry_partitionable(True):  # the value must not depend on that setting
        u = jax.random.uniform(jax.random.fold_in(key, 0), (), jnp.float32)
    start = jnp.asarray(stratum, jnp.int32) * timesteps
    offset = (start % strata).astype(jnp.float32) / np.float32(strata)
    offset = offset + u * np.float32(timesteps / strata)
    last = (start + timesteps - 1) // strata  # the stratum's last timestep, wherever it ends
    return jnp.minimum(start // strata + jnp.floor(offset).astype(jnp.int32), last)


def draw_noise(key: Array, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normal noise, float32, of the shape (frames, ...) of a latent.

    Each frame has a key of its own, so the noise of a frame does not depend on how many frames
    follow it: padding changes nothing.
    """
    frames = jnp.arange(shape[0], dtype=jnp.uint32)
    base = jax.random.fold_in(key, 1)
    with jax.threefry_partitionable(True):  # the value must not depend on that setting
        return jax.vmap(
            lambda f: jax.random.normal(jax.random.fold_in(base, f), shape[1:], jnp.float32)
        )(frames)


def timestep_and_noise(
    root: Root,
    words: Words,
    draw: Int[Array, ""] | int,
    strata: int,
    timesteps: int,
    shape: tuple[int, ...],
) -> tuple[Int[Array, ""], Float[Array, "..."]]:
    """One draw of one track: its timestep, 0 .. timesteps-1, and float32 noise of a shape."""
    key = draw_key(root, words, draw)
    stratum = jnp.asarray(draw, jnp.int32) % strata
    return draw_timestep(key, stratum, strata, timesteps), draw_noise(key, shape)


def bin_of(strata: int) -> Int[np.ndarray, " S"]:
    """The timestep bin, 0 (cleanest) .. 9 (noisiest), of each stratum.

    Raises:
        InputError: the strata do not fill the bins evenly.
    """
    if strata < BINS or strata % BINS:
        raise InputError(f"strata = {strata}; give a multiple of {BINS}, the timestep bins")
    return np.arange(strata) * BINS // strata


def subset(ids: Sequence[str], count: int, seed: int) -> list[str]:
    """A random subset of ids: a function of the seed and the set, not of the order.

    Raises:
        InputError: `count` is not in 1 .. number of ids.
    """
    if not 1 <= count <= len(ids):
        raise InputError(f"a subset of {count} of {len(ids)} tracks; ask for 1 to {len(ids)}")
    salt = root(seed, Domain.SUBSET).tobytes()
    return sorted(ids, key=lambda i: hashlib.sha256(salt + i.encode()).digest())[:count]
