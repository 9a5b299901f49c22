"""Anomalies made of normal images that concern the whole image: simpler, larger, two in one, in another order.

Those of `synthetic` add something, mostly to a part; a score that takes whatever is plain for normal finds
them all, and none of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from trainer.scoring.synthetic import of_each_kind


def _blurred(pixels: np.ndarray) -> np.ndarray:
    side = pixels.shape[1]
    return gaussian_filter(pixels, (0, side / 16, side / 16, 0))


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    side = pixels.shape[1]
    edge = side // 6
    grown = side / (side - 2 * edge)
    return np.asarray(zoom(pixels[:, edge : side - edge, edge : side - edge], (1, grown, grown, 1), order=1))


def _blended(pixels: np.ndarray) -> np.ndarray:
    return (pixels + np.roll(pixels, 1, axis=0)) / 2


def _stitched(pixels: np.ndarray) -> np.ndarray:
    half = pixels.shape[1] // 2
    return np.concatenate([pixels[:, :half], np.roll(pixels, 1, axis=0)[:, half:]], axis=1)


def _shuffled(pixels: np.ndarray) -> np.ndarray:
    half = pixels.shape[1] // 2
    top, bottom = pixels[:, :half], pixels[:, half:]
    return np.concatenate([np.roll(bottom, half, axis=2), np.roll(top, half, axis=2)], axis=1)


def _inverted(pixels: np.ndarray) -> np.ndarray:
    return 2 * pixels.mean(axis=(1, 2), keepdims=True) - pixels


def _turned(pixels: np.ndarray) -> np.ndarray:
    return np.rot90(pixels, 1, (1, 2))


WHOLE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blurred": _blurred,
    "enlarged": _enlarged,
    "blended": _blended,
    "stitched": _stitched,
    "shuffled": _shuffled,
    "inverted": _inverted,
    "turned": _turned,
}
"""Each: float32 N x H x W x C, the range of uint8, to the same shape. Another image is the one before."""


def synthetic_of(images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Anomalies made of images, uint8 N x H x W x C, kind by kind: of `of_each_kind`, and of the whole image.

    Of no kind where images are too small for it. One kind after the other, since eleven of large images are gigabytes.
    """
    parts = of_each_kind(images)
    yield from parts.items()
    if parts:
        pixels = images.astype(np.float32)
        for kind, made in WHOLE.items():
            yield kind, made(pixels).round().clip(0, 255).astype(np.uint8)
