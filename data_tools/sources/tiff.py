"""TIFF by tifffile: the right picture, or a refusal that names the reason.

What a page means is decided here alone: which value is white, where the samples of a pixel lie, how many bits they
have, what further samples are. The first page of several is read.
"""

from __future__ import annotations

import io
import logging
import math
import struct
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

from data_tools.sources.formats import UnfitError, check_size
from data_tools.sources.picture import Header, Picture

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # a library's remarks on odd tags are no news

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SAMPLES = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.SEPARATED: 4,
    PHOTOMETRIC.YCBCR: 3,
}
"""How many samples make a pixel; what comes beyond is extra. Other meanings of the values are not read."""
PREMULTIPLIED, TRANSPARENCY = 1, 2
"""What an extra sample can be: alpha that colours were multiplied by, or that they are yet to be multiplied by."""
JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG)
PICTURES: dict[int, str] = {
    **dict.fromkeys(JPEG, "JPEG"),
    COMPRESSION.JPEG2000: "JPEG2000",
    COMPRESSION.APERIO_JP2000_YCBC: "JPEG2000",
    COMPRESSION.APERIO_JP2000_RGB: "JPEG2000",
    COMPRESSION.PNG: "PNG",
    COMPRESSION.WEBP: "WEBP",
}
"""Compressions whose strips and tiles are images with sizes of their own."""
MAX_PAGES = 10_000
TO_GREY = "save it as grey or RGB"


def read_tiff(file: BinaryIO) -> Picture:
    """The first page's picture; raises UnfitError for what is not read, and whatever a damaged file leads to."""
    with tifffile.TiffFile(file) as tif:
        page = _checked(tif)
        samples = _samples(page)
        tag = page.tags.get(274)
        pixels, alpha = _meaning(page, samples)
        return Picture(pixels, alpha, int(tag.value) if tag and tag.value in range(1, 9) else 1, _pages(tif))


def tiff_header(file: BinaryIO) -> Header:
    """Size and kind of the first page, without a look at its pixels; raises as `read_tiff`."""
    with tifffile.TiffFile(file) as tif:
        page = _checked(tif)
        is_grey = SAMPLES[PHOTOMETRIC(page.photometric)] == 1 and page.photometric != PHOTOMETRIC.PALETTE
        return Header(page.imagewidth, page.imagelength, is_grey, _is_deep(page), _pages(tif))


def _is_deep(page: tifffile.TiffPage) -> bool:
    return page.photometric != PHOTOMETRIC.PALETTE and page.dtype is not None and page.dtype.itemsize > 1


def read_labels(file: BinaryIO) -> np.ndarray:
    """The values of a label mask as they were written, H x W, whatever colours stand for them."""
    with tifffile.TiffFile(file) as tif:
        if (pages := _pages(tif)) != 1:
            raise UnfitError(f"a stack of {pages} images - save every frame as a file of its own")
        page = _checked(tif, any_meaning=True)
        if page.compression in JPEG:
            raise UnfitError("a mask in JPEG, which alters labels - export it without loss")
        samples = _samples(page)
    if samples.shape[2] != 1:
        raise UnfitError("a mask in colour - export it as grey values, one label an object")
    return samples[:, :, 0].astype(np.uint8) if samples.dtype == bool else samples[:, :, 0]


def _pages(tif: tifffile.TiffFile) -> int:
    """How many images there are, up to 10,000; tifffile's own count does not end where the chain goes in a circle."""
    file, form, seen = tif.filehandle, tif.tiff, set[int]()
    file.seek(form.offsetsize)  # where the first offset stands: at byte 4, or at byte 8
    while len(seen) < MAX_PAGES:
        (place,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
        if not 0 < place < file.size or place in seen:
            break
        seen.add(place)
        file.seek(place)
        (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        file.seek(place + form.tagnosize + tags * form.tagsize)
        if file.size < file.tell() + form.offsetsize:
            break
    return len(seen)


def _checked(tif: tifffile.TiffFile, any_meaning: bool = False) -> tifffile.TiffPage:
    """The first page, after a look at all that its tags claim."""
    page = tif.pages.first
    assert isinstance(page, tifffile.TiffPage)
    if page.imagedepth != 1:
        raise UnfitError(f"a volume of {page.imagedepth} layers - save every layer as a file of its own")
    if page.dtype is None or page.dtype.kind == "c":
        kind = page.dtype or f"{page.bitspersample}-bit {page.sampleformat!s}"
        raise UnfitError(f"holds {kind} values - convert it to integers of 8 or 16 bits")
    check_size(page.imagewidth, page.imagelength, page.samplesperpixel * page.dtype.itemsize)
    if page.dtype.itemsize > 2 and PICTURES.get(page.compression) == "JPEG2000":
        raise UnfitError(f"JPEG 2000 of {page.dtype} values, which its library gets wrong - save it without")
    if not any_meaning and page.photometric not in SAMPLES:
        name = getattr(page.photometric, "name", page.photometric)
        raise UnfitError(f"its values mean {name} - {TO_GREY}")
    _check_places(page, tif.filehandle)
    return page


def _check_places(page: tifffile.TiffPage, file: tifffile.FileHandle) -> None:
    """ValueError where pixels would be made up: of a file that was cut off, or parts of which were never written."""
    kind = PICTURES.get(page.compression)
    if len(page.dataoffsets) < math.prod(page.chunked) or len(page.databytecounts) < len(page.dataoffsets):
        raise ValueError("a part of it was never written")
    for offset, size in zip(page.dataoffsets, page.databytecounts):
        if offset <= 0 or size <= 0:
            raise ValueError("a part of it was never written")
        if offset + size > file.size:
            raise ValueError("it ends before its pixels do")
        if kind:
            file.seek(offset)
            _check_part(kind, file.read(size))


def _check_part(kind: str, part: bytes) -> None:
    """UnfitError where an image within a TIFF says that it is larger than an image may be."""
    # Pillow knows no JPEG of two channels, nor JPEG 2000 of five.
    try:
        if kind == "JPEG":
            place = 2
            while not 0xC0 <= part[place + 1] <= 0xCF or part[place + 1] in (0xC4, 0xC8, 0xCC):
                place += 2 + struct.unpack_from(">H", part, place + 2)[0]
            height, width = struct.unpack_from(">HH", part, place + 5)
            check_size(width, height, part[place + 9])
        elif kind == "JPEG2000":
            place = part.index(b"\xff\x4f\xff\x51")
            width, height = struct.unpack_from(">II", part, place + 8)
            check_size(width, height, 4 * struct.unpack_from(">H", part, place + 40)[0])
        else:
            with Image.open(io.BytesIO(part), formats=(kind,)) as image:
                check_size(image.width, image.height)
    except (IndexError, struct.error):
        raise ValueError(f"its {kind} has no size") from None


def _samples(page: tifffile.TiffPage) -> np.ndarray:
    """H x W x S, in the machine's byte order, wherever the file keeps the S samples of a pixel."""
    # One thread: files are read side by side already.
    values = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # planes x H x W x samples, one of the two being 1
    values = np.moveaxis(values[..., 0], 0, -1) if len(values) > 1 else values[0]
    if values.shape[:2] != (page.imagelength, page.imagewidth):
        raise ValueError(f"its pixels are {values.shape[1]} x {values.shape[0]}, not as its tags say")
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _meaning(page: tifffile.TiffPage, samples: np.ndarray) -> tuple[Image.Image | np.ndarray, np.ndarray | None]:
    """A Pillow image where values have 8 bits or fewer, else values H x W (x 3); and transparency beside values."""
    photometric = PHOTOMETRIC(page.photometric)
    count = SAMPLES[photometric]
    extra = samples.shape[2] - count
    kinds = tuple(page.extrasamples) or ((TRANSPARENCY,) if (count, extra) == (3, 1) else (0,) * max(extra, 0))
    if extra < 0 or (count == 1 and extra and kinds[0] not in (PREMULTIPLIED, TRANSPARENCY)):
        raise UnfitError(f"has {samples.shape[2]} channels, which are no colours - save the one that matters, or RGB")
    alpha = samples[:, :, count] if extra > 0 and kinds[0] == TRANSPARENCY else None
    if alpha is not None and alpha.dtype.kind == "i":
        raise UnfitError(f"transparency in numbers with a sign - {TO_GREY}")
    values = samples[:, :, :count]
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 8
    if photometric == PHOTOMETRIC.PALETTE:
        return _coloured(page, values[:, :, 0]), None
    if photometric == PHOTOMETRIC.MINISWHITE:
        values = _inverted(values, bits)
    if values.dtype == np.int8:
        values, bits = (values.view(np.uint8) ^ 128), 8
    if photometric == PHOTOMETRIC.SEPARATED:
        values = _without_ink(page, values, bits)
    if photometric == PHOTOMETRIC.YCBCR and page.compression not in JPEG:  # of JPEG comes RGB
        return _from_ycbcr(page, values), None
    shades = None if alpha is None else _shades(alpha, bits)
    if values.dtype.itemsize > 1:
        return (values[:, :, 0] if values.shape[2] == 1 else values), shades
    pixels = [_shades(values, bits)] + ([] if shades is None else [shades[:, :, None]])
    joined = np.ascontiguousarray(np.concatenate(pixels, axis=2))
    return Image.fromarray(joined[:, :, 0] if joined.shape[2] == 1 else joined), None


def _shades(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of few bits, or shares of transparency, as 0 to 255."""
    if values.dtype.kind == "f":
        return np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
    if bits >= 8:
        return (values >> (bits - 8)).astype(np.uint8, copy=False)
    return np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)[values.view(np.uint8)]


def _inverted(values: np.ndarray, bits: int) -> np.ndarray:
    if values.dtype.kind == "f":
        raise UnfitError("floats of which the smallest is white - save it with black as the smallest")
    return ~values if values.dtype.kind in "bi" else np.asarray(2**bits - 1, values.dtype) - values


def _coloured(page: tifffile.TiffPage, places: np.ndarray) -> Image.Image | np.ndarray:
    """What a palette shows: 16 bits a colour, of which the upper half is taken; some programs write 8 alone."""
    if page.colormap is None or places.dtype.kind != "u":
        raise UnfitError(f"a palette without colours - {TO_GREY}")
    colours = page.colormap.T
    colours = (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)
    if places.max(initial=0) >= len(colours):
        raise ValueError("its palette is too short")
    if places.dtype != np.uint8:
        return Image.fromarray(colours[places])
    image = Image.fromarray(np.ascontiguousarray(places))
    image.putpalette(colours.tobytes())
    return image


def _without_ink(page: tifffile.TiffPage, inks: np.ndarray, bits: int) -> np.ndarray:
    """Cyan, magenta, yellow and black as RGB."""
    tag = page.tags.get(332)
    if (tag and int(tag.value) != 1) or inks.dtype.kind != "u":
        raise UnfitError(f"inks that are not cyan, magenta, yellow and black as integers - {TO_GREY}")
    if inks.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(inks), "CMYK").convert("RGB"))
    full, result = 2.0**bits - 1, np.empty((*inks.shape[:2], 3), inks.dtype)
    for row, colours in zip(inks, result):
        light = full - row[:, 3:]
        colours[:] = light - np.rint(row[:, :3] * light / full)
    return result


def _from_ycbcr(page: tifffile.TiffPage, values: np.ndarray) -> Image.Image:
    tag = page.tags.get(532)
    levels = None if tag is None else [float(a) / float(b) for a, b in zip(tag.value[::2], tag.value[1::2])]
    if values.dtype != np.uint8 or page.compression in PICTURES or levels not in (None, [0, 255, 128, 255, 128, 255]):
        raise UnfitError(f"YCbCr of an unusual kind - {TO_GREY}")
    return Image.fromarray(np.ascontiguousarray(values), "YCbCr")
