"""Parameters by path: flat views of a tree, the part a pattern selects, and the way back.

The path of a parameter is its keys joined by "/", for example
`down_blocks/1/attentions/0/transformer_blocks/0/attn2/to_k/kernel`.
"""

import re
from collections.abc import Mapping
from typing import Any

from flax import traverse_util

from tda_jax.errors import InputError

Flat = dict[str, Any]


def flatten(params: Mapping[str, Any]) -> Flat:
    """The tree as one dict from path to leaf."""
    return traverse_util.flatten_dict(params, sep="/")


def merge(*parts: Flat) -> dict[str, Any]:
    """The nested tree of flat parts that do not overlap: the inverse of `split` and `flatten`."""
    together: Flat = {}
    for part in parts:
        twice = sorted(together.keys() & part.keys())
        if twice:
            raise InputError(f"these parameters are in two parts: {twice[:5]}; give each one once")
        together |= part
    return traverse_util.unflatten_dict(together, sep="/")


def split(params: Mapping[str, Any], pattern: str) -> tuple[Flat, Flat]:
    """Splits a tree into the parameters whose whole path matches a pattern, and the rest.

    Args:
      params: a tree of parameters.
      pattern: a regular expression that must match the path from end to end.

    Returns:
      Two flat dicts, to be put together again by `merge`. Differentiate with respect to the first
      one only.

    Raises:
      InputError: the pattern selects nothing.
    """
    flat = flatten(params)
    selected = {path: leaf for path, leaf in flat.items() if re.fullmatch(pattern, path)}
    if not selected:
        raise InputError(
            f"the pattern {pattern!r} selects none of {len(flat)} parameters; "
            f"their paths look like {next(iter(flat), '(no parameters)')!r}"
        )
    return selected, {path: leaf for path, leaf in flat.items() if path not in selected}
