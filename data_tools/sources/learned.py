"""The one rule by which a dataset's images of more than 8 bits become 8: learned from some of them, or as asked.

The 0.1 and 99.9 percent points of up to 32 of the images that are trained on, evenly spaced, become 0 and 255. Cameras
use a small part of 16 bits; the percentiles keep a hot pixel from deciding. It is a function of files and options
alone, found once, before the first image is cut.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.dataset.intensity import Intensity, asked
from data_tools.errors import UserError
from data_tools.sources.formats import UnfitError
from data_tools.text import readable

PERCENT = (0.1, 99.9)
SAMPLED = 32
VALUES = 1 << 18
"""Of an image, at most, evenly spaced."""
ENOUGH_LEVELS = 64
KINDS = {"u": "integers", "i": "integers", "f": "floats"}


@dataclass(frozen=True)
class Rule:
    """kind: of the values that `intensity` was learned from; "" where any will do, since it was asked for."""

    intensity: Intensity | None
    kind: str = ""

    def eight_bit(self, values: np.ndarray) -> np.ndarray:
        """uint8 of the same shape; UnfitError for values unlike those that the rule was learned from."""
        if values.dtype == np.uint8:
            return values
        if self.intensity is None or self.kind not in ("", _kind(values)):
            raise UnfitError(
                f"holds {values.dtype} values, unlike the images that were looked at to learn how they become 8 bits"
                " - convert it, or give --intensity LOW,HIGH"
            )
        return self.intensity.eight_bit(values)


def learned(option: str, paths: Sequence[Path], values_of: Callable[[Path], np.ndarray | None]) -> Rule:
    """What --intensity says, or what some of the images do; a line on stderr where it was learned, one where it hurts.

    values_of: an image's values of more than 8 bits, None where it has none. It may raise UserError: who cuts the image
    says what is wrong with it. Raises UserError when the images are of kinds that no one line fits.
    """
    fixed = asked(option)
    places = np.linspace(0, len(paths) - 1, min(len(paths), SAMPLED)).round().astype(int)
    result: list[tuple[Path, np.ndarray]] = []
    shallow: list[Path] = []
    for path in (paths[place] for place in places.tolist()):
        with contextlib.suppress(UserError):
            values = values_of(path)
            if values is None:
                shallow.append(path)
            elif values.dtype.kind != "f" or np.isfinite(values).all():
                flat = values.ravel()
                result.append((path, flat[:: -(-len(flat) // VALUES)]))
    if shallow and (result or fixed):
        print(
            f"intensity: {len(shallow)} of {len(shallow) + len(result)} images that were looked at have 8 bits and stay"
            " as they are",
            file=sys.stderr,
        )
    if not result:
        return Rule(fixed)
    if fixed is None:
        _check_alike(result, shallow)
    made = fixed or _percentiles(np.concatenate([values for _, values in result]))
    if fixed is None:
        print(
            f"intensity: {made.low:.9g} becomes 0 and {made.high:.9g} becomes 255, learned from {len(result)} of the"
            " images; --intensity LOW,HIGH sets it",
            file=sys.stderr,
        )
    _warn_of_few_levels(made, result)
    return Rule(made, "" if fixed else _kind(result[0][1]))


def _percentiles(values: np.ndarray) -> Intensity:
    low, high = (float(each) for each in np.percentile(values, PERCENT, method="inverted_cdf"))
    if low == high:  # few pixels hold all there is to see
        low, high = float(values.min()), float(values.max())
    return Intensity(low, high if high > low else low + 1)


def _kind(values: np.ndarray) -> str:
    return KINDS.get(values.dtype.kind, str(values.dtype))


def _check_alike(samples: list[tuple[Path, np.ndarray]], shallow: list[Path]) -> None:
    first, values = samples[0]
    others = [(path, str(other.dtype)) for path, other in samples if _kind(other) != _kind(values)]
    # 8 bits beside 16 are usual: some of the images were saved by another program.
    if values.dtype != np.uint16 and shallow:
        others.append((shallow[0], "8-bit"))
    if others:
        raise UserError(
            f"{first}: holds {values.dtype} values, {others[0][0].name} {others[0][1]} ones, and no one line fits both"
            " - convert one of them, or give --intensity LOW,HIGH"
        )


def _warn_of_few_levels(intensity: Intensity, samples: list[tuple[Path, np.ndarray]]) -> None:
    few = []
    for path, values in samples:
        own, left = len(np.unique(values)), len(np.unique(intensity.eight_bit(values)))
        if left < ENOUGH_LEVELS <= own:
            few.append((path, own, left))
    if few:
        path, own, left = few[0]
        print(
            f"warning: {len(few)} of {len(samples)} images that were looked at keep fewer than {ENOUGH_LEVELS} grey"
            f" levels ({readable(path.name)}: {left} of {own}) - --intensity LOW,HIGH says which values to keep apart",
            file=sys.stderr,
        )
