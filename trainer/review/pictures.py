"""Images as a browser shows them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

ACROSS = 10
"""Images in a row of a sheet."""
TILE = 64
"""Pixels of an image's side on a sheet, at most."""


def tile(side: int) -> int:
    """Pixels of an image's side on a sheet."""
    while side > TILE and side % 2 == 0:
        side //= 2
    return side


def sheet(images: np.ndarray) -> bytes:
    """uint8 N x H x W x C as one PNG, ten in a row; larger ones are brought to 64 pixels a side or below."""
    n, side, _, channels = images.shape
    to = tile(side)
    if to < side:
        small = images.reshape(n, to, side // to, to, side // to, channels).mean(axis=(2, 4), dtype=np.float32)
        images = np.rint(small).astype(np.uint8)
    rows = -(-n // ACROSS)
    whole = np.zeros((rows * ACROSS, to, to, channels), np.uint8)
    whole[:n] = images
    whole = whole.reshape(rows, ACROSS, to, to, channels).transpose(0, 2, 1, 3, 4)
    return png(whole.reshape(rows * to, ACROSS * to, channels))


def png(image: np.ndarray) -> bytes:
    """uint8 H x W x C, C 1 or 3."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(file, "PNG", compress_level=1)
    return file.getvalue()
