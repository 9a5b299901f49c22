"""What every source needs: checks of its options, valid keys, seeded draws."""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np
import tyro

from data_tools.errors import UserError

IntensityOption = Annotated[
    str,
    tyro.conf.arg(
        metavar="auto|LOW,HIGH",
        help="What becomes black and white of images of more than 8 bits, one line for all of them: auto takes the 0.1"
        " and 99.9 percent points of some that are trained on; images of 8 bits stay as they are.",
    ),
]


def check_resolution(resolution: int, option: str = "--resolution") -> None:
    """Make sure that patches of `resolution` x `resolution` pixels can be grown into: a power of two, at least 4.

    Raises UserError that names `option` and the nearest sizes that would do.
    """
    if resolution >= 4 and resolution & (resolution - 1) == 0:
        return
    if resolution < 4:
        remedy = "4"
    else:
        below = 1 << (resolution.bit_length() - 1)
        remedy = f"{below} or {2 * below}"
    raise UserError(f"{option} is {resolution}, but must be a power of two, 4 or more - give {remedy}")


def check_at_least(value: int, least: int, option: str) -> None:
    """Raise UserError naming `option` when `value` is below `least`."""
    if value < least:
        raise UserError(f"{option} is {value} - give {least} or more")


def key_part(text: str, longest: int = 60) -> str:
    """Turn any text into a piece of a key: ASCII letters, digits, `_` and `-`, 1 to `longest` characters.

    Different texts can give the same piece, so a key also needs a number of its own.
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:longest].strip("-") or "x"


def shuffled(count: int, seed: int, purpose: str) -> np.ndarray:
    """Return the numbers 0 .. `count` - 1 in a random order that depends on the arguments alone; int64.

    `purpose` keeps the orders that come from one seed independent of each other.
    """
    return np.random.default_rng([seed, *purpose.encode()]).permutation(count)
