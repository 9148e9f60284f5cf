"""Numbers as a report writes them, for people to read."""

import math
from typing import Any

NONE = "–"  # where there is no number
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PLAIN = (1e-5, 1e5)  # sizes that are written without a power of ten


def number(value: Any, digits: int = 3) -> str:
    """A number of so many significant digits; very small and very large ones by powers of ten."""
    if not known(value):
        return NONE
    size = abs(float(f"{value:.{digits}g}"))
    if size == 0:
        return "0"
    if _PLAIN[0] <= size < _PLAIN[1]:
        decimals = max(0, digits - 1 - math.floor(math.log10(size)))
        return _minus(f"{float(f'{value:.{digits}g}'):,.{decimals}f}")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return _minus(f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}")


def short(value: Any) -> str:
    """A round number, such as a rank or a mark on an axis: no zeros at its end."""
    if not known(value):
        return NONE
    text, power, exponent = number(value, 4).partition(" × ")
    return (text.rstrip("0").rstrip(".") if "." in text else text) + power + exponent


def fixed(value: Any, decimals: int = 2) -> str:
    """A number of so many decimals, for those of a column."""
    return _minus(f"{value:,.{decimals}f}") if known(value) else NONE


def percent(share: Any, decimals: int = 0) -> str:
    """A share of 1 in hundredths."""
    return f"{fixed(100 * share, decimals)}\u00a0%" if known(share) else NONE


def count(value: int, one: str, many: str | None = None) -> str:
    """So many of something: "1 track", "1,234 tracks"."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """How long work took."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def clock(seconds: float) -> str:
    """A place in a recording, as players write it: 1:05."""
    minutes, rest = divmod(math.floor(seconds), 60)
    return f"{minutes}:{rest:02d}"


def known(value: Any) -> bool:
    """Whether it is a number that is finite."""
    return value is not None and math.isfinite(value)


def _minus(text: str) -> str:
    return text.replace("-", "−")
