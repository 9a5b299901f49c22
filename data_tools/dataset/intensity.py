"""How values of more than 8 bits become 8: one straight line for a whole dataset, recorded in its manifest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_tools.errors import UserError

ROWS = 256
"""Of an image, worked on at a time, so that floats of all of it are never held."""


@dataclass(frozen=True)
class Intensity:
    """`low` becomes 0 and `high` 255, what lies between goes by a straight line, what lies beyond is clipped.

    For integers of more than 8 bits and for floats. Images of 8 bits stay as they are.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"intensity from {self.low} to {self.high} - give two numbers, the lower one first")

    def eight_bit(self, values: np.ndarray) -> np.ndarray:
        """uint8 of the same shape, rounded to the nearest; ValueError for NaN or infinite values."""
        if values.dtype == np.uint8:
            return values
        return _in_parts(values, self._line)

    def _line(self, values: np.ndarray) -> np.ndarray:
        return (np.clip(values, self.low, self.high) - self.low) * (255 / (self.high - self.low))

    def to_json(self) -> list[float]:
        return [self.low, self.high]

    @staticmethod
    def from_json(value: Any) -> Intensity | None:
        """Of a manifest or checkpoint; None where it has none. Raises ValueError."""
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2 or any(type(each) not in (int, float) for each in value):
            raise ValueError(f"intensity is {str(value)[:40]}, not two numbers")
        try:
            low, high = (float(each) for each in value)
        except OverflowError:
            raise ValueError("intensity has a number that is too large") from None
        return Intensity(low, high)


def asked(option: str) -> Intensity | None:
    """What --intensity says: None for auto; raises UserError."""
    if option == "auto":
        return None
    try:
        low, high = (float(word) for word in option.split(","))
        return Intensity(low, high)
    except ValueError:
        raise UserError(f"--intensity is {option!r} - give auto, or LOW,HIGH such as 0,4095") from None


def by_old_rule(values: np.ndarray, in_parts: bool) -> np.ndarray:
    """As datasets without an intensity have it: uint8, each image by itself.

    values: of more than 8 bits. in_parts: it is coloured or has transparency. 16-bit values are divided by 257, of
    coloured images the upper half is taken. Integers of 32 bits count as 16-bit ones when they fit; floats are
    taken to run from 0 to 1 when they fit. Anything else is stretched from its smallest to its largest value.
    """
    if in_parts and values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("holds NaN or infinite values")
    full = 1.0 if values.dtype.kind == "f" else 65535.0
    if low >= 0 and high <= full:
        low, high = 0.0, full
    return _in_parts(values, lambda part: (part - low) * (255 / (high - low) if high > low else 0))


def _in_parts(values: np.ndarray, line: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A function of float64, rounded to uint8; of 16 bits by a table, in a fifth of the time."""
    if values.dtype in (np.uint16, np.int16) and values.size > 1 << 16:
        every = np.arange(1 << 16, dtype=np.uint16).view(values.dtype).astype(np.float64)
        return np.rint(np.clip(line(every), 0, 255)).astype(np.uint8)[values.view(np.uint16)]
    result = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), ROWS):
        part = values[start : start + ROWS].astype(np.float64)
        if not np.isfinite(part).all():
            raise ValueError("holds NaN or infinite values")
        result[start : start + ROWS] = np.rint(line(part))
    return result
