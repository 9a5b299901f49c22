"""Anomalies made of normal images that concern the whole image: simpler, larger, two in one, in another order.

Those of `synthetic` add something, mostly to a part; a score that takes whatever is plain for normal finds
them all, and none of these.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from trainer.scoring.synthetic import of_each_kind


def synthetic_of(images: np.ndarray) -> dict[str, np.ndarray]:
    """Anomalies made of images, uint8 N x H x W x C, by kind: those of `of_each_kind`, and those of the whole image.

    The other image of "blended" and "stitched" is the one before. Of no kind where images are too small for it.
    """
    result = of_each_kind(images)
    if not result:
        return {}
    pixels, side = images.astype(np.float64), images.shape[1]
    others = np.roll(pixels, 1, axis=0)
    edge = side // 6
    inner, grown = pixels[:, edge : side - edge, edge : side - edge], side / (side - 2 * edge)
    middle = pixels.mean(axis=(1, 2), keepdims=True)
    stitched = np.concatenate([pixels[:, : side // 2], others[:, side // 2 :]], axis=1)
    quarter = side // 2
    top, bottom = pixels[:, :quarter], pixels[:, quarter:]
    shuffled_quarters = np.concatenate([np.roll(bottom, quarter, axis=2), np.roll(top, quarter, axis=2)], axis=1)
    whole = {
        "blurred": gaussian_filter(pixels, (0, side / 16, side / 16, 0)),
        "enlarged": np.asarray(zoom(inner, (1, grown, grown, 1), order=1)),
        "blended": (pixels + others) / 2,
        "stitched": stitched,
        "shuffled": shuffled_quarters,
        "inverted": 2 * middle - pixels,
        "turned": np.rot90(pixels, 1, (1, 2)),
    }
    return result | {kind: made.round().clip(0, 255).astype(np.uint8) for kind, made in whole.items()}
