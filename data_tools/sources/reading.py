"""One picture as it lies in a file or in bytes: what it is, is told by its content, never by its name's ending.

TIFF is read by tifffile, PNG of 16 bits by imagecodecs, since Pillow wraps, swaps or drops what it has no mode for; all
the rest by Pillow. What a file says about itself beside its pixels, and says wrongly, does not refuse the pixels.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
from PIL import Image, UnidentifiedImageError

from data_tools.sources.formats import PILLOW_FORMATS, UnfitError, check_size, named, pillow_formats
from data_tools.sources.picture import Header, Picture
from data_tools.sources.tiff import MAGIC, read_tiff, tiff_header

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
ORIENTATION = 0x0112


def read_picture(source: Path | BinaryIO, name: str) -> Picture:
    """Read a picture; name: of the file, or of what the bytes stand for. Raises UserError with name and reason."""
    try:
        with _opened(source) as file:
            head = _head(file)
            if head.startswith(MAGIC):
                return read_tiff(file)
            if _is_deep_png(head):
                return _deep_png(file.read())
            return _by_pillow(file, name)
    except Exception as error:
        raise named(name, error) from error


def read_header(source: Path | BinaryIO, name: str) -> Header:
    """Size and kind of a picture before anything of its size is allocated; raises UserError as `read_picture`."""
    try:
        with _opened(source) as file:
            head = _head(file)
            if head.startswith(MAGIC):
                return tiff_header(file)
            with _identified(file, name) as image:
                grey = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
                deep = _is_deep_png(head) or image.mode in ("I", "F") or image.mode.startswith("I;16")
                return Header(image.width, image.height, grey, deep)
    except Exception as error:
        raise named(name, error) from error


@contextlib.contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """A file, which is never a pipe or a device, or bytes from their beginning."""
    if not isinstance(source, Path):
        source.seek(0)
        yield source
        return
    if not stat.S_ISREG(os.stat(source).st_mode):
        raise UnfitError("is not a regular file - give an image file")
    with source.open("rb") as file:
        yield file


def _head(file: BinaryIO) -> bytes:
    head = file.read(32)
    file.seek(0)
    if not head:
        raise ValueError("it is empty")
    return head


def _identified(file: BinaryIO, name: str) -> Image.Image:
    """A Pillow image that is not decoded yet, of a size that may be."""
    try:
        image = Image.open(file, formats=pillow_formats(name))
    except Image.DecompressionBombError as error:
        raise UnfitError(f"is too large to be opened safely ({error}) - cut it into smaller images") from None
    except UnidentifiedImageError:
        raise ValueError(f"its content is none of TIFF, {', '.join(PILLOW_FORMATS)}") from None
    check_size(*image.size)
    return image


def _by_pillow(file: BinaryIO, name: str) -> Picture:
    try:
        return _decoded(file, name)
    except UnfitError:
        raise
    except Exception:
        # What stands beside the pixels may be all that is wrong.
        file.seek(0)
        plain = _pixels_alone(file.read())
        if plain is None:
            raise
        with contextlib.suppress(Exception):
            return _decoded(io.BytesIO(plain), name)
        raise


def _decoded(file: BinaryIO, name: str) -> Picture:
    image = _identified(file, name)
    image.load()
    try:
        orientation = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # it lies as it lies
        orientation = 1
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Picture(np.asarray(image), None, orientation)
    return Picture(image, None, orientation)


def _is_deep_png(head: bytes) -> bool:
    return head.startswith(PNG_MAGIC) and head[24:25] == b"\x10"


def _deep_png(content: bytes) -> Picture:
    """Pillow keeps half of the bits where such a PNG is coloured."""
    width, height, _, kind = struct.unpack(">IIBB", content[16:26])
    check_size(width, height, {0: 2, 2: 6, 4: 4, 6: 8}.get(kind, 8))
    if not any(name == b"IEND" for name, _, _ in _png_chunks(content)):
        raise ValueError("it ends before its pixels do")
    orientation = _orientation(content)
    values = imagecodecs.png_decode(_pixels_alone(content) or content)
    if values.dtype != np.uint16 or values.shape[:2] != (height, width):
        raise ValueError("its pixels are not as its header says")
    alpha = None
    if values.ndim == 3 and values.shape[2] in (2, 4):
        alpha = (values[:, :, -1] >> 8).astype(np.uint8)
        values = values[:, :, 0] if values.shape[2] == 2 else values[:, :, :3]
    return Picture(values, alpha, orientation)


def _orientation(png: bytes) -> int:
    for name, start, end in _png_chunks(png):
        if name == b"eXIf":
            with contextlib.suppress(Exception):
                exif = Image.Exif()
                exif.load(b"Exif\0\0" + png[start + 8 : end - 4])
                return int(exif.get(ORIENTATION, 1))
    return 1


def _png_chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and end of every chunk that is whole."""
    place = len(PNG_MAGIC)
    while place + 12 <= len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4], "big")
        if end > len(png):
            return
        yield png[place + 4 : place + 8], place, end
        place = end


def _pixels_alone(content: bytes) -> bytes | None:
    """A PNG or JPEG without what its pixels do not need; None of other formats, and where nothing would change."""
    if content.startswith(PNG_MAGIC):
        parts = [content[start:end] for name, start, end in _png_chunks(content) if name in PNG_PIXELS]
        plain = PNG_MAGIC + b"".join(parts)
    elif content.startswith(b"\xff\xd8"):
        plain = _jpeg_pixels_alone(content)
    else:
        return None
    return plain if plain != content else None


def _jpeg_pixels_alone(content: bytes) -> bytes:
    parts, place = [content[:2]], 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        marker, end = content[place + 1], place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):  # JFIF and Adobe's mark say what colours mean
            parts.append(content[place:end])
        place = end
    return b"".join([*parts, content[place:]])
