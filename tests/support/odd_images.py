"""Pictures that every test of odd images knows, and files of every kind."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

SIDE = 16
RAMP = np.linspace(0, 1, SIDE)[None, :].repeat(SIDE, 0)  # black on the left, white on the right
GREY = np.rint(RAMP * 255).astype(np.uint8)


def packed_tiff(values: np.ndarray, bits: int, photometric: int, **tags: int) -> bytes:
    """A little-endian TIFF of one strip, its bits packed as most significant first; bits of 16 in the file's order."""
    if bits == 16:
        pixels = values.astype("<u2").tobytes()
    elif bits == 24:
        pixels = values.astype("<u4").view(np.uint8).reshape(*values.shape, 4)[:, :, :3].tobytes()
    else:
        rows = (values[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
        pixels = b"".join(np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in rows)
    entries = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: photometric, 277: 1, 278: SIDE}
    entries |= {273: 0, 279: len(pixels)} | {int(tag): value for tag, value in tags.items()}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + struct.pack("<I", 0) + pixels


def cell(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8))


def cells(folder: Path, count: int = 6, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        cell(number).save(folder / f"c{number:03d}.png")
    return folder


def whole_files() -> list[bytes]:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = []
    for compression in (None, "lzw", "zlib", "jpeg", "jpeg2000", "packbits", "png"):
        for order in ("<", ">"):
            file = io.BytesIO()
            tifffile.imwrite(file, picture, compression=compression, byteorder=order, photometric="rgb", tile=(16, 16))
            found.append(file.getvalue())
    for kind in ("PNG", "JPEG", "WEBP", "JPEG2000", "GIF", "BMP", "PPM"):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, kind)
        found.append(file.getvalue())
    return [*found, bytes(imagecodecs.png_encode(picture.astype(np.uint16) * 257))]
