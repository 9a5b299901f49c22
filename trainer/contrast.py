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
"""Training images, at most, that the line is learned from: the first ones that a training run sees, in random order."""
PERCENTILES = (0.5, 99.5)
"""Of all their pixels, which become -1 and 1: a speck of dust or junk does not move them."""
MIN_WIDTH = 8
"""Grey levels between the two, at least: noise of an empty set is not blown up further than that."""


MIN_SPREAD = 1e-3
"""Of an image as networks see it: below an eighth of a grey level there is nothing to bring out."""


@dataclass(frozen=True)
class Contrast:
    """`low` becomes -1 and `high` 1 by a straight line; what lies beyond goes on along it, nothing is clipped.

    low, high: grey levels, 0 to 255. mean, spread: what is usual among images as networks see them: the mean of their
    pixels, and the median of their standard deviations; runs of earlier versions do not know theirs.
    """

    low: float = 0.0
    high: float = 255.0
    mean: float = 0.0
    spread: float = 0.35

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.to_json())) or not (self.low < self.high and self.spread > 0):
            raise ValueError(f"contrast is {self.to_json()} - the second number is above the first, the last above 0")

    def seen(self, pixels: Tensor) -> Tensor:
        """Float pixels, 0 to 255, as networks see them: about [-1, 1], the same shape."""
        from_low = pixels - self.low if self.low else pixels
        return from_low / (0.5 * (self.high - self.low)) - 1

    def pixels(self, seen: np.ndarray) -> np.ndarray:
        """What networks see or make, back to pixels: uint8 of the same shape, clipped."""
        return np.clip(np.rint((seen + 1) * (0.5 * (self.high - self.low)) + self.low), 0, 255).astype(np.uint8)

    def standardised(self, queries: Tensor) -> Tensor:
        """Each query N x C x r x r by itself at the usual mean and spread: faint ones show their grain."""
        flat = queries.flatten(1)
        centred = flat - flat.mean(dim=1, keepdim=True)
        spread = centred.square().mean(dim=1, keepdim=True).sqrt().clamp_min(MIN_SPREAD)
        return (centred * (self.spread / spread) + self.mean).view_as(queries)

    def to_json(self) -> list[float]:
        return [self.low, self.high, self.mean, self.spread]

    @staticmethod
    def from_json(value: Any) -> Contrast:
        """Of a checkpoint; FULL where it names none. Raises ValueError."""
        if value is None:
            return FULL
        if not isinstance(value, list) or len(value) != 4 or any(type(each) not in (int, float) for each in value):
            raise ValueError(f"contrast is {str(value)[:40]}, not four numbers")
        return Contrast(*map(float, value))


FULL = Contrast()
"""uint8 / 127.5 - 1: the whole range, whatever images make of it."""


def contrast_of(data: TrainingSet, learned: bool) -> Contrast:
    """Of a training set: a function of the data, the seed and what is left out alone, the same on every worker.

    learned: its own range; else the full one.
    """
    images = data.at(np.arange(min(len(data), LEARNED_FROM)))
    low, high = _range(images) if learned else (FULL.low, FULL.high)
    flat = images.reshape(len(images), -1)
    half, spread = 0.5 * (high - low), float(np.median(flat.std(axis=1, dtype=np.float64)))
    mean = (float(flat.mean(dtype=np.float64)) - low) / half - 1
    return Contrast(low, high, mean, max(spread / half, MIN_SPREAD))


def _range(images: np.ndarray) -> tuple[float, float]:
    below = np.cumsum(np.bincount(images.ravel(), minlength=256)) / images.size
    low, high = (int(np.searchsorted(below, percent / 100)) for percent in PERCENTILES)
    missing = max(MIN_WIDTH - (high - low), 0)
    low = max(min(low - missing // 2, 255 - MIN_WIDTH), 0) if missing else low
    return float(low), float(max(high, low + MIN_WIDTH))
