"""Random numbers that are a function of (seed, name), for what is made by parts."""

import hashlib

import numpy as np


def generator(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each name: no draw depends on what else was drawn."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))
