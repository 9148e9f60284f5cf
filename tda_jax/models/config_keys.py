"""Checked reading of the JSON configs of diffusers and transformers.

Every key that is understood is checked for its kind; a key that would change the computation in a
way that is not ported is refused by name, so that a checkpoint never runs as something it is not.
"""

from collections.abc import Mapping
from typing import Any

from tda_jax.errors import InputError
from tda_jax.kinds import Kind

# diffusers' EMAModel.save_pretrained adds these to the config of the weights it averaged.
EMA_KEYS = frozenset(
    {
        "decay",
        "min_decay",
        "optimization_step",
        "update_after_step",
        "use_ema_warmup",
        "inv_gamma",
        "power",
    }
)


def _tuples(value: Any) -> Any:
    """JSON lists as tuples, so that a config can be hashed."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def read_keys(
    config: Mapping[str, Any],
    source: str,
    kinds: Mapping[str, Kind],
    fixed: Mapping[str, tuple[Any, ...]],
    ignored: frozenset[str] = frozenset(),
    *,
    refuse_unknown: bool = True,
) -> dict[str, Any]:
    """Checks a config and returns the keys that were understood.

    Args:
      config: the JSON object.
      source: what to call it in an error, as a rule the file's path.
      kinds: the keys that are read, each with its kind.
      fixed: keys that are not read: the values under which they change nothing.
      ignored: keys that never change the computation.
      refuse_unknown: whether any other key is an error (private keys, starting with `_`, and keys
        that are null never are).

    Raises:
      InputError: a value of the wrong kind, a value that is not ported, or an unknown key.
    """
    values = {}
    for key, value in config.items():
        if key in kinds:
            if not kinds[key].accepts(value):
                raise InputError(
                    f"{source}: {key} is {value!r}, which is not {kinds[key].words}; "
                    f"correct it, or restore the config that belongs to the weights"
                )
            values[key] = _tuples(value)
        elif key in fixed:
            # Where diffusers takes a value for each block, all of them must change nothing.
            each = value if isinstance(value, list | tuple) and value else [value]
            if any(_tuples(v) not in fixed[key] for v in each):
                allowed = " or ".join(repr(v) for v in fixed[key])
                raise InputError(
                    f"{source}: {key} is {value!r}, which is not supported; only {allowed} is, "
                    f"so a model that needs it cannot be loaded"
                )
        elif key in ignored or key.startswith("_") or key in EMA_KEYS or value is None:
            continue
        elif refuse_unknown:
            raise InputError(
                f"{source}: {key} is {value!r}, and this key is unknown; "
                f"remove it only if you know that it changes nothing"
            )
    return values


def require(ok: bool, source: str, key: str, value: Any, remedy: str) -> None:
    """Refuses a value that is of the right kind and yet does not fit."""
    if not ok:
        raise InputError(f"{source}: {key} is {value!r}; {remedy}")


def per_block(value: Any, blocks: int, source: str, key: str) -> tuple[Any, ...]:
    """One value a block: a single one is repeated."""
    if not isinstance(value, tuple):
        return (value,) * blocks
    require(len(value) == blocks, source, key, value, f"give one value for each of {blocks} blocks")
    return value
