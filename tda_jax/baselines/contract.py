"""What a method of attribution is: a pure function of a model and a corpus, then of queries.

Unlearning and its rivals are all given in this form, so that one suite tests them and one table
compares them. Methods differ in what they compute, never in what they are told.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float64

from tda_jax.attribution.contract import Model
from tda_jax.examples import Corpus

Scores = dict[str, Float64[np.ndarray, "queries n"]]
"""By the name of a variant, one score for each query and track; higher is more support. A track
that a method cannot score is nan."""


class Task(NamedTuple):
    """What is attributed. A score depends on model, corpus, corpus_size, query and seed alone.

    Attributes:
        model: θ0, what made the queries.
        corpus: tracks, each a row: members, which θ0 was trained on, and decoys.
        corpus_size: N, the size of the model's training set.
        seed: of every draw.
        used: local devices.
        batch: latents in the network at a time, on one device.
    """

    model: Model
    corpus: Corpus
    corpus_size: int
    seed: int
    used: tuple[jax.Device, ...]
    batch: int


class Passes(NamedTuple):
    """What a method costs, in passes of one latent forward through the network.

    A pass forward and backward counts three; a tangent carried along a pass counts one more. What
    is done beside the network is not counted.

    Attributes:
        shared: once for a corpus.
        query: for each query.
    """

    shared: float
    query: float


class Method(NamedTuple):
    """A method of attribution, or several that share their passes.

    Attributes:
        name: what tables call it.
        prepare: (task) -> what is computed once for all queries; any tree.
        score: (task, prepared, queries) -> scores of each variant. The queries are a corpus of
            rows whose ids name their draws.
        passes: (task) -> what it takes.
    """

    name: str
    prepare: Callable[[Task], Any]
    score: Callable[[Task, Any, Corpus], Scores]
    passes: Callable[[Task], Passes]
