"""Scores of one query under each method and control, from the arrays of its steps.

exact        the rise of the loss after the step
linearised   lr·a + lr²·b
odd, even    its two parts
reversed     -lr·a + lr²·b: the linearised score of the step the other way, learning the query
scrambled    linearised, along the direction with random signs, at its own rate where the step
             is scale-free
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float64

from tda_jax import examples
from tda_jax.attribution import scores
from tda_jax.baselines import similarity
from tda_jax.evaluation.controls_plan import Plan

METHODS = ("exact", "linearised", "odd", "even", "reversed", "scrambled")
CONSTANT = ("latent similarity", "caption similarity", "length", "loudness", "loss before")
CONSTANT += ("chance",)

Arrays = Mapping[str, np.ndarray]


def rise_name(rise: float) -> str:
    """The name of a scale-free step."""
    return f"rise {rise:g}"


def step_names(plan: Plan) -> tuple[str, ...]:
    """The names of the steps of `controls_stages.steps`, in its order."""
    return (rise_name(plan.rise), *(f"rate {rate:g}" for rate in plan.rates))


def constant(
    corpus: examples.Corpus, query: str, before: Float[np.ndarray, "n R S"], seed: int
) -> dict[str, np.ndarray]:
    """Scores that no step enters into, (n,) each: likeness to the query, and query-blind ones.

    "length" and "loudness" are minus the difference in valid frames and in the root mean square
    over them; "loss before" is the same for every query.
    """
    one = examples.take(corpus, [corpus.ids.index(query)])
    frames = np.asarray(corpus.examples.mask, np.float64).sum(1)
    rms = _loudness(corpus.examples)
    row = corpus.ids.index(query)
    found = (
        similarity.latent_similarity(one.examples, corpus.examples)[0],
        similarity.condition_similarity(one.examples, corpus.examples)[0],
        -np.abs(frames - frames[row]),
        -np.abs(rms - rms[row]),
        before.mean((1, 2), dtype=np.float64),
        similarity.chance([query], corpus.ids, seed)[0],
    )
    return dict(zip(CONSTANT, found, strict=True))


def rises(
    arrays: Arrays, before: np.ndarray, plan: Plan, group: int, step: int
) -> dict[str, np.ndarray]:
    """The per-draw rise (n, R, S) by method, for one group and step.

    Args:
        arrays: from `controls_stages.steps`.
        before: the losses of every track, (n, R, S).
        plan: what they were computed by.
        group: its position in `plan.groups`.
        step: its position in `step_names`.
    """
    true, other = 2 * group, 2 * group + 1
    rate, other_rate = (rate_of(arrays, plan, d, step) for d in (true, other))
    forth = scores.linearised(arrays["a"][:, true], arrays["b"][:, true], rate)
    signs = scores.linearised(arrays["a"][:, other], arrays["b"][:, other], other_rate)
    found = (
        scores.exact(before, arrays["after"][group, step]),
        forth.total,
        forth.odd,
        forth.even,
        forth.even - forth.odd,
        signs.total,
    )
    return dict(zip(METHODS, found, strict=True))


def rate_of(arrays: Arrays, plan: Plan, direction: int, step: int) -> float:
    """The learning rate of a direction at a step: its own for ρ, else the raw one."""
    return float(arrays["rate"][direction]) if step == 0 else plan.rates[step - 1]


def _loudness(tracks: examples.Example) -> Float64[np.ndarray, " n"]:
    mask = np.asarray(tracks.mask, np.float64)
    power = np.square(np.asarray(tracks.latent, np.float64)).reshape(*mask.shape, -1).mean(2)
    return np.sqrt((mask * power).sum(1) / mask.sum(1))
