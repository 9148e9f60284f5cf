"""Kinds of values in JSON configs: what a value must be, in words and as a test."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """What a value must be: words for the error message and a test."""

    words: str
    accepts: Callable[[Any], bool]


def is_whole(value: Any) -> bool:
    """Whether a value is an integer; a bool is one in Python, and `true` is never a count."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a number and not nan; infinities are numbers."""
    return (is_whole(value) or isinstance(value, float)) and not math.isnan(value)


def _is_count(value: Any) -> bool:
    return is_whole(value) and value > 0


def _list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(map(accepts, v))


COUNT = Kind("a whole number above 0", _is_count)
NUMBER = Kind("a finite number", lambda v: is_number(v) and math.isfinite(v))
POSITIVE = Kind("a finite number above 0", lambda v: is_number(v) and 0 < v < math.inf)
BOOL = Kind("true or false", lambda v: isinstance(v, bool))
STR = Kind("a string", lambda v: isinstance(v, str))
STRS = Kind("a list of strings", _list_of(STR.accepts))
COUNTS = Kind("a list of whole numbers above 0", _list_of(_is_count))
COUNT_LISTS = Kind("a list of lists of whole numbers above 0", _list_of(COUNTS.accepts))
COUNT_OR_COUNTS = Kind(
    "a whole number above 0 or a list of them", lambda v: _is_count(v) or COUNTS.accepts(v)
)


def optional(kind: Kind) -> Kind:
    """The same kind, or null."""
    return Kind(f"{kind.words}, or null", lambda v: v is None or kind.accepts(v))
