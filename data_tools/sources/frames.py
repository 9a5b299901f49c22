"""Frames of cell videos and their label masks, read as they come: TIF, PNG or JPEG, of any depth, grey or colour.

Colour becomes grey with the weights of ITU-R 601. What more than 8 bits become is the dataset's rule.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.errors import UserError
from data_tools.sources.formats import PILLOW_FORMATS, TIFF_ENDINGS
from data_tools.sources.formats import named as named_error
from data_tools.sources.reading import read_header, read_picture
from data_tools.sources.tiff import read_labels
from data_tools.walk import files_in

FRAME_ENDINGS = TIFF_ENDINGS | {f".{ending}" for kind in ("PNG", "JPEG") for ending in PILLOW_FORMATS[kind]}
LAST_LABEL = 65535
"""Masks of both layouts are of 16 bits."""
LUMA = (0.299, 0.587, 0.114)


def find_frames(folder: Path) -> list[Path]:
    """List the frames of one sequence in alphabetical order, which is the order of time."""
    return [path for path in files_in(folder) if path.suffix.lower() in FRAME_ENDINGS]


def read_frame(path: Path) -> np.ndarray:
    """Read one frame as grey, H x W, uint8 or of more bits; raises UserError when it cannot be read."""
    picture = read_picture(path, str(path))
    _check_single(path, picture.pages)
    if isinstance(picture.pixels, Image.Image):
        return np.asarray(picture.pixels.convert("L"))
    values = picture.pixels
    if values.ndim == 2:
        return values
    grey = values @ np.array(LUMA)
    return (grey if values.dtype.kind == "f" else np.rint(grey)).astype(values.dtype)


def deep_frame(path: Path) -> np.ndarray | None:
    """Read a frame of more than 8 bits; None for others, which are not decoded."""
    return read_frame(path) if read_header(path, str(path)).is_deep else None


def frame_size(path: Path) -> tuple[int, int]:
    """Return the height and width of a frame without reading its pixels; raises UserError."""
    header = read_header(path, str(path))
    _check_single(path, header.pages)
    return header.height, header.width


def read_mask(path: Path) -> np.ndarray:
    """Read a label mask, H x W of integers, 0 where there is no object; raises UserError."""
    try:
        with path.open("rb") as file:
            mask = read_labels(file)
    except Exception as error:
        raise named_error(str(path), error) from error
    if mask.dtype.kind not in "iu" or mask.min() < 0:
        kind = "negative" if mask.dtype.kind in "iu" else mask.dtype
        raise UserError(f"{path}: a mask of {kind} values - export it as unsigned integers, one label an object")
    if mask.max() > LAST_LABEL:
        raise UserError(f"{path}: has label {mask.max()}, but masks go up to {LAST_LABEL} - number the objects again")
    return mask


def _check_single(path: Path, pages: int) -> None:
    if pages != 1:
        raise UserError(f"{path}: a stack of {pages} images - save every frame as a file of its own")
