"""What is known of one picture, before and after it is decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, eq=False)
class Picture:
    """pixels: a Pillow image where values have 8 bits or fewer, else an array of values, H x W or H x W x 3.

    alpha: uint8 H x W, beside an array that has transparent parts. orientation: EXIF's number, 1 where it is upright.
    pages: images in the file, of which this is the first, as far as the format is TIFF.
    """

    pixels: Image.Image | np.ndarray
    alpha: np.ndarray | None = None
    orientation: int = 1
    pages: int = 1


@dataclass(frozen=True)
class Header:
    """What is known of a picture before it is decoded. is_deep: its values have more than 8 bits."""

    width: int
    height: int
    is_grey: bool
    is_deep: bool
    pages: int = 1
