"""Frames of cell videos and their label masks, read as they come: TIF, PNG or JPEG, 8 or 16 bits, grey or colour.

8 bits: frames of 8 bits are kept as they are. Frames of 16 bits go through one straight line for the whole sequence,
so that they stay comparable: the 0.1 and 99.9 percent points of up to 16 evenly spaced frames become 0 and 255, and
what lies beyond is clipped. Cameras use a small part of the 16 bits; the percentiles keep a hot pixel from deciding.

Colour becomes grey with the weights of ITU-R 601.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from data_tools.errors import UserError

TIF_ENDINGS = frozenset((".tif", ".tiff"))
FRAME_ENDINGS = TIF_ENDINGS | {".png", ".jpg", ".jpeg"}
LAST_LABEL = 65535
"""Masks of both layouts are of 16 bits."""
LUMA = (0.299, 0.587, 0.114)
PERCENT = (0.1, 99.9)
SAMPLED_FRAMES = 16


def find_frames(folder: Path) -> list[Path]:
    """List the frames of one sequence in alphabetical order, which is the order of time.

    Names that start with "._" are what macOS leaves on foreign disks, not images.
    """
    return sorted(
        (
            path
            for path in folder.iterdir()
            if path.suffix.lower() in FRAME_ENDINGS and not path.name.startswith("._") and path.is_file()
        ),
        key=lambda path: path.name,
    )


def read_frame(path: Path) -> np.ndarray:
    """Read one frame as grey, H x W, uint8 or uint16; raises UserError when it cannot be read."""
    with _trouble_named(path):
        if path.suffix.lower() in TIF_ENDINGS:
            image = _read_tif_frame(path)
        else:
            with Image.open(path) as opened:
                # PNG can hold 16 bits of grey; Pillow's way to grey from all the rest is ITU-R 601.
                image = np.asarray(opened if opened.mode.startswith("I") else opened.convert("L"))
    if image.dtype.kind != "u" or image.dtype.itemsize > 2:
        raise UserError(f"{path}: holds {image.dtype} values - convert it to whole numbers of 8 or 16 bits")
    return image.astype(image.dtype.newbyteorder("="))


def frame_size(path: Path) -> tuple[int, int]:
    """Return the height and width of a frame without reading its pixels; raises UserError."""
    with _trouble_named(path):
        if path.suffix.lower() in TIF_ENDINGS:
            with _one_page(path) as page:
                return page.imagelength, page.imagewidth
        with Image.open(path) as opened:
            return opened.height, opened.width


def read_mask(path: Path) -> np.ndarray:
    """Read a label mask, H x W of whole numbers, 0 where there is no object; raises UserError."""
    with _trouble_named(path), _one_page(path) as page:
        mask = page.asarray()
    if mask.ndim != 2:
        raise UserError(f"{path}: a mask in colour - export it as grey values, one label an object")
    if mask.dtype.kind not in "iu" or mask.min() < 0:
        kind = "negative" if mask.dtype.kind in "iu" else mask.dtype
        raise UserError(f"{path}: a mask of {kind} values - export it as unsigned whole numbers, one label an object")
    if mask.max() > LAST_LABEL:
        raise UserError(f"{path}: has label {mask.max()}, but masks go up to {LAST_LABEL} - number the objects anew")
    return mask


@lru_cache(maxsize=4)
def eight_bit_table(paths: tuple[Path, ...]) -> np.ndarray:
    """Return 65,536 values of uint8: what each value of a 16-bit frame of this sequence becomes.

    Reads up to `SAMPLED_FRAMES` of the frames, one after the other; at least one must have 16 bits.
    Remembers the last few sequences, so that a process reads these frames once; the array is read-only.
    Raises UserError when one of the frames cannot be read.
    """
    sampled = np.linspace(0, len(paths) - 1, min(len(paths), SAMPLED_FRAMES)).round().astype(int)
    counts = np.zeros(1 << 16, np.int64)
    for index in sampled:
        frame = read_frame(paths[index])
        if frame.dtype == np.uint16:
            counts += np.bincount(frame.ravel(), minlength=1 << 16)
    below = np.cumsum(counts)
    low, high = np.searchsorted(below, np.array(PERCENT) / 100 * below[-1])
    scaled = (np.arange(1 << 16) - low) * (255 / max(high - low, 1))
    table = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    table.flags.writeable = False
    return table


def _read_tif_frame(path: Path) -> np.ndarray:
    with _one_page(path) as page:
        image = page.asarray()
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise UserError(f"{path}: has a palette of colours - convert it to grey")
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and image.dtype.kind == "u":
            image = np.iinfo(image.dtype).max - image
        if page.axes == "SYX":
            image = np.moveaxis(image, 0, 2)
    if image.ndim == 3 and image.shape[2] <= 4:
        # One or two channels are grey, perhaps with transparency; three or four are colour.
        grey = image[..., 0] if image.shape[2] < 3 else np.rint(image[..., :3] @ np.array(LUMA))
        image = grey.astype(image.dtype)
    if image.ndim != 2:
        raise UserError(f"{path}: is no flat image - save every frame as a file of its own")
    return image


@contextmanager
def _one_page(path: Path) -> Iterator[tifffile.TiffPage]:
    with tifffile.TiffFile(path) as tif:
        if len(tif.pages) != 1:
            raise UserError(f"{path}: a stack of {len(tif.pages)} images - save every frame as a file of its own")
        yield tif.pages.first


@contextmanager
def _trouble_named(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # The file formats fail in many ways: OSError, ValueError, struct.error, errors of each codec ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}) - copy or export it anew") from error
