"""Whether a model of one's own keeps the contract that attribution relies on.

from tda_jax.attribution import conformance
print(conformance.check(model, examples))
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tda_jax import keys
from tda_jax import params as tree
from tda_jax.attribution.contract import Model, Terms, loss_of, split_group
from tda_jax.errors import InputError
from tda_jax.examples import Example

_DRAWS = 3
_CLOSE = {"float32": 1e-4, "float64": 1e-9}  # share of the larger value


def check(model: Model, examples: Example) -> str:
    """Runs every check on the first two examples; a few forward and backward passes each.

    Args:
        model: to be checked, with parameters in float32 or float64.
        examples: two at least, with a leading axis, as attribution would get them.

    Returns:
        One line for each promise that the model keeps.

    Raises:
        InputError: a promise is broken; the message says which, with the values seen.
    """
    if len(examples.latent) < 2:
        raise InputError(f"{len(examples.latent)} examples to check with; give two at least")
    kept = [f"{name}: {check_one(model, examples)}" for name, check_one in _CHECKS.items()]
    return "\n".join(kept)


def _draw(model: Model, examples: Example, track: int, draw: int) -> tuple[Example, Any, Any]:
    """An example, a timestep and noise."""
    one = jax.tree.map(lambda x: jnp.asarray(x[track]), examples)
    words = keys.track_words([str(track)])[0]
    root = keys.root(0, keys.Domain.SWEEP)
    t, noise = keys.timestep_and_noise(root, words, draw, _DRAWS, model.timesteps, one.latent.shape)
    return one, t, noise.astype(one.latent.dtype)


def _terms(model: Model, params: Any, examples: Example, track: int = 0, draw: int = 0) -> Terms:
    return model.terms(params, *_draw(model, examples, track, draw))


def _shapes(model: Model, examples: Example) -> str:
    terms = _terms(model, model.params, examples)
    latent = examples.latent.shape[1:]
    if terms.prediction.shape != latent or terms.target.shape != latent:
        raise InputError(
            f"prediction {terms.prediction.shape} and target {terms.target.shape} differ from the "
            f"latent {latent}; terms take one example without a batch axis"
        )
    loss = loss_of(terms)
    if not bool(jnp.isfinite(loss)):
        raise InputError(f"the loss of a draw is {loss}; check weights, scaling and mask")
    return f"prediction and target are {latent}, the loss {float(loss):.4g}"


def _pure(model: Model, examples: Example) -> str:
    step = jax.jit(lambda p: loss_of(_terms(model, p, examples)))
    first, second = float(step(model.params)), float(step(model.params))
    if first != second:
        raise InputError(
            f"the same draw gave {first} and then {second}; terms must be pure: no dropout, no "
            "random numbers of their own"
        )
    return "the same draw gives the same loss, to the bit"


def _mapped(model: Model, examples: Example) -> str:
    one, _, _ = _draw(model, examples, 0, 0)
    draws = [_draw(model, examples, 0, d)[1:] for d in range(_DRAWS)]
    times = jnp.stack([jnp.asarray(t) for t, _ in draws])
    noises = jnp.stack([noise for _, noise in draws])

    def loss(t: jax.Array, noise: jax.Array) -> jax.Array:
        return loss_of(model.terms(model.params, one, t, noise))

    together = np.asarray(jax.jit(jax.vmap(loss))(times, noises))
    alone = np.asarray([float(loss(t, noise)) for t, noise in draws])
    _refuse_apart(together, alone, "losses mapped over draws and one at a time")
    if np.ptp(alone) == 0:
        raise InputError(f"all draws have the loss {alone[0]}; terms must use t and the noise")
    return "draws mapped and one at a time agree"


def _target(model: Model, examples: Example) -> str:
    tangent = jax.tree.map(jnp.ones_like, model.params)
    moved = jax.jvp(lambda p: _terms(model, p, examples).target, (model.params,), (tangent,))[1]
    if bool(jnp.any(moved != 0)):
        raise InputError("the target changes with the parameters; it must be fixed")
    return "the target does not depend on the parameters"


def _mask(model: Model, examples: Example) -> str:
    one, t, noise = _draw(model, examples, 0, 0)
    half = len(one.mask) // 2
    first = one._replace(mask=jnp.arange(len(one.mask)) < half)
    masks = [model.terms(model.params, e, t, noise) for e in (one, first)]
    if half and float(loss_of(masks[0])) == float(loss_of(masks[1])):
        raise InputError(
            "a mask over half of the frames changes nothing; return the example's mask in the terms"
        )
    return "the mask of an example counts in its loss"


def _groups(model: Model, examples: Example) -> str:
    if not model.groups:
        raise InputError("the model names no parameter group; name one, such as 'all': '.*'")
    return ", ".join(f"{name} {_group(model, examples, name)}" for name in sorted(model.groups))


def _group(model: Model, examples: Example, name: str) -> str:
    """Forward and reverse mode agree on a group, and its gradient is not zero."""
    moved, rest = split_group(model, name)
    moved = {path: jnp.asarray(leaf) for path, leaf in moved.items()}

    def loss(m: tree.Flat) -> jax.Array:
        return loss_of(_terms(model, tree.merge(m, rest), examples))

    gradient = jax.jit(jax.grad(loss))(moved)
    norm = float(sum(jnp.vdot(g, g) for g in gradient.values()))
    if not (np.isfinite(norm) and norm > 0):
        raise InputError(f"group {name!r}: the gradient's squared length is {norm}")
    along = float(jax.jit(lambda m, u: jax.jvp(loss, (m,), (u,))[1])(moved, gradient))
    _refuse_apart(np.array([along]), np.array([norm]), f"group {name!r}: the derivative along g")
    return f"({sum(x.size for x in moved.values()):,} parameters, |g| = {norm**0.5:.3g})"


def _apart(model: Model, examples: Example) -> str:
    first, t, noise = _draw(model, examples, 0, 0)
    second = _draw(model, examples, 1, 0)[0]._replace(mask=first.mask)
    losses = [float(loss_of(model.terms(model.params, e, t, noise))) for e in (first, second)]
    if losses[0] == losses[1]:
        raise InputError(f"two examples have the same loss {losses[0]}; terms must use the example")
    return "examples differ in their losses"


def _refuse_apart(got: np.ndarray, wanted: np.ndarray, what: str) -> None:
    bound = _CLOSE[
        "float64" if got.dtype == np.float64 and jax.config.jax_enable_x64 else "float32"
    ]
    if np.abs(got - wanted).max() > bound * np.abs(wanted).max():
        raise InputError(f"{what} differ: {got} and {wanted}; terms must be smooth and pure")


_CHECKS: dict[str, Callable[[Model, Example], str]] = {
    "shapes": _shapes,
    "pure": _pure,
    "mapped": _mapped,
    "target": _target,
    "mask": _mask,
    "examples": _apart,
    "groups": _groups,
}
