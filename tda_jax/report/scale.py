"""Axes of scores: most scores are small and few are far larger, so a wide axis bends."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

_FEWEST_TICKS = 4
_LINEAR = 10  # units that a linear axis shows well
_STEPS = (1, 2, 2.5, 5, 10)
_MARGIN = 0.03  # of the axis, at both ends


class Scale(NamedTuple):
    """An axis, linear or, where scores reach far, about linear near zero and logarithmic beyond.

    Attributes:
        low: the score at the left end.
        high: at the right end.
        unit: up to where a wide axis is about linear.
        wide: whether it bends.
    """

    low: float
    high: float
    unit: float
    wide: bool

    def place(self, scores: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Where scores lie, 0 at the left end and 1 at the right."""
        low, high = self._bent(np.array([self.low, self.high]))
        return (self._bent(scores) - low) / (high - low)

    def edges(self, bins: int) -> Float64[np.ndarray, " edges"]:
        """The edges of bins that are equally wide on the axis."""
        ends = self._bent(np.array([self.low, self.high]))
        edges = np.linspace(*ends, bins + 1)
        return self.unit * np.sinh(edges) if self.wide else edges

    def ticks(self) -> list[float]:
        """Zero and round numbers."""
        return _powers(self) if self.wide else round_ticks(self.low, self.high)

    def _bent(self, x: np.ndarray) -> np.ndarray:
        return np.arcsinh(x / self.unit) if self.wide else x


def scale_of(scores: Float[np.ndarray, " n"]) -> Scale:
    """An axis on which all of some finite scores lie, zero among them; one at least."""
    unit = float(np.median(np.abs(scores))) or 1.0
    low, high = min(0.0, float(scores.min())), max(0.0, float(scores.max()))
    wide = high - low > _LINEAR * unit
    if not wide:
        margin = _MARGIN * (high - low or unit)
        return Scale(low - margin, high + margin, unit, wide=False)
    ends = np.arcsinh(np.array([low, high]) / unit)
    margin = _MARGIN * float(np.ptp(ends))
    left, right = (float(unit * np.sinh(x)) for x in (ends[0] - margin, ends[1] + margin))
    return Scale(left, right, unit, wide=True)


def _powers(scale: Scale) -> list[float]:
    """Zero and powers of ten from the unit on; where those are few, twice and five times them."""
    reach = max(-scale.low, scale.high)
    exponents = range(math.floor(math.log10(scale.unit)), math.ceil(math.log10(reach)) + 1)
    for multiples in ((1,), (1, 2, 5)):
        sizes = [
            size
            for k in exponents
            for m in multiples
            if (size := float(f"{m}e{k}")) >= 0.9 * scale.unit
        ]
        every = (*(-x for x in sizes[::-1]), 0.0, *sizes)
        ticks = [x for x in every if scale.low <= x <= scale.high]
        if len(ticks) >= _FEWEST_TICKS:
            break
    return ticks


def round_ticks(low: float, high: float) -> list[float]:
    """Round numbers, equally far apart, from `low` to a higher `high`."""
    power = 10.0 ** math.floor(math.log10((high - low) / _FEWEST_TICKS))
    step = next(m * power for m in _STEPS if (high - low) / (m * power) <= _FEWEST_TICKS + 1)
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [float(f"{k * step:.6g}") for k in numbers]
