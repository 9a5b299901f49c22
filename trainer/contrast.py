"""How pixels become what networks see: one straight line for a whole run, learned from its training images on request.

A critic of slope 1 sees a distance in proportion to it, so images of little contrast drown in a step's noise. The line
brings a set's own range to [-1, 1], which is what the paper calls normalised; see tuning/results/steadiness.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from data_tools.dataset.training_set import TrainingSet

LEARNED_FROM = 4096
"""Training images, at most, that the line is learned from: the first ones that a training sees, in random order."""
PERCENTILES = (0.5, 99.5)
"""Of all their pixels, which become -1 and 1: a speck of dust or junk does not move them."""
LEAST_WIDTH = 8
"""Grey levels between the two, at least: noise of an empty set is not blown up further than that."""


@dataclass(frozen=True)
class Contrast:
    """`low` becomes -1 and `high` 1 by a straight line; what lies beyond goes on along it, nothing is clipped.

    low, high: grey levels, 0 to 255.
    """

    low: float = 0.0
    high: float = 255.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"contrast from {self.low} to {self.high} - give two numbers, the lower one first")

    def seen(self, pixels: Tensor) -> Tensor:
        """Float pixels, 0 to 255, as networks see them: about [-1, 1], the same shape."""
        from_low = pixels - self.low if self.low else pixels
        return from_low / (0.5 * (self.high - self.low)) - 1

    def pixels(self, seen: np.ndarray) -> np.ndarray:
        """What networks see or make, back to pixels: uint8 of the same shape, clipped."""
        return np.clip(np.rint((seen + 1) * (0.5 * (self.high - self.low)) + self.low), 0, 255).astype(np.uint8)

    def to_json(self) -> list[float]:
        return [self.low, self.high]

    @staticmethod
    def from_json(value: Any) -> Contrast:
        """Of a checkpoint; FULL where it names none. Raises ValueError."""
        if value is None:
            return FULL
        if not isinstance(value, list) or len(value) != 2 or any(type(each) not in (int, float) for each in value):
            raise ValueError(f"contrast is {str(value)[:40]}, not two numbers")
        return Contrast(float(value[0]), float(value[1]))


FULL = Contrast()
"""uint8 / 127.5 - 1: the whole range, whatever images make of it."""


def learned_contrast(data: TrainingSet) -> Contrast:
    """Of a training set: a function of the data, the seed and what is left out alone, the same on every worker."""
    images = data.at(np.arange(min(len(data), LEARNED_FROM)))
    below = np.cumsum(np.bincount(images.ravel(), minlength=256)) / images.size
    low, high = (int(np.searchsorted(below, percent / 100)) for percent in PERCENTILES)
    missing = max(LEAST_WIDTH - (high - low), 0)
    low = max(min(low - missing // 2, 255 - LEAST_WIDTH), 0) if missing else low
    return Contrast(float(low), float(max(high, low + LEAST_WIDTH)))
