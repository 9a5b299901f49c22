"""Anomalies made of normal images, and how well a score tells them from their originals: a measure without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_tools.errors import UserError

NOISE_SIGMA = 0.15 * 255
MIN_SIDE = 8
"""Of images that can be corrupted."""


def _cut_paste(image: np.ndarray, draw: np.random.Generator) -> None:
    side = min(image.shape[:2])
    size, stretch = side * draw.uniform(1 / 8, 1 / 3), np.exp(draw.uniform(-0.5, 0.5) * np.log(3))
    height, width = max(1, round(size * stretch)), max(1, round(size / stretch))
    across = image.shape[1] - width + 1
    places = (image.shape[0] - height + 1) * across
    source = draw.integers(places)
    target = (source + draw.integers(1, places)) % places  # any place but the source
    (top, left), (to_top, to_left) = divmod(source, across), divmod(target, across)
    piece = image[top : top + height, left : left + width]
    image[to_top : to_top + height, to_left : to_left + width] = piece  # numpy minds the overlap


def _noise(image: np.ndarray, draw: np.random.Generator) -> None:
    side = min(image.shape[:2]) // 2
    top, left = draw.integers(image.shape[0] - side + 1), draw.integers(image.shape[1] - side + 1)
    square = image[top : top + side, left : left + side]
    square[...] = (square + draw.normal(0, NOISE_SIGMA, square.shape)).round().clip(0, 255)


def _blot(image: np.ndarray, draw: np.random.Generator) -> None:
    height, width = image.shape[:2]
    centre_y, centre_x = draw.uniform(0, height - 1), draw.uniform(0, width - 1)
    radius_y, radius_x = min(height, width) * draw.uniform(1 / 8, 1 / 4, 2)
    y, x = np.ogrid[:height, :width]
    spot = ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 <= 1
    low, high = int(image.min()), int(image.max())
    image[spot] = low + int(draw.random() * (high - low + 1))  # one draw, whatever the image holds


def _faint(image: np.ndarray, draw: np.random.Generator) -> None:
    from scipy.ndimage import gaussian_filter  # takes longer to import than it is used

    sigma, left = min(image.shape[:2]) / 16, draw.uniform(0.2, 0.6)
    pixels = image.astype(np.float64)
    structure = gaussian_filter(pixels, (sigma, sigma, 0))
    mean = structure.mean(axis=(0, 1))
    image[...] = (pixels - structure + mean + left * (structure - mean)).round().clip(0, 255)


_CORRUPT = {"cut-paste": _cut_paste, "noise": _noise, "blot": _blot, "faint": _faint}
CORRUPTIONS = tuple(_CORRUPT)
LOCAL = ("cut-paste", "noise", "blot")
"""Those that change a part of an image, which sweeps report."""


def corrupted(images: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """Images with a synthetic anomaly each: uint8 N x H x W x C, 8x8 and up -> a new array of the same shape.

    "cut-paste": a rectangle of the image copied to another place of it (Li et al. 2021); its size, the geometric mean
    of height and width, is 1/8 to 1/3 of the side and its aspect 1/3 to 3 before rounding to pixels. "noise": Gaussian,
    sigma 0.15 of the full range, in a square of half the side. "blot": an ellipse with radii of 1/8 to 1/4 of the side,
    centred in the image, in one value from the image's own range. "faint": what is coarser than 1/16 of the side keeps
    0.2 to 0.6 of its contrast about its mean, and the grain stays.

    What is drawn for image i depends on the seed, the kind, i and the shape alone, so more images change nothing.
    UserError for an unknown kind.
    """
    if kind not in _CORRUPT:
        raise UserError(f"corruption {kind} is unknown - give one of {', '.join(CORRUPTIONS)}")
    draw = np.random.default_rng((seed, CORRUPTIONS.index(kind)))
    result = images.copy()
    for image in result:
        _CORRUPT[kind](image, draw)
    return result


def of_each_kind(images: np.ndarray) -> dict[str, np.ndarray]:
    """Images with a synthetic anomaly each, by its kind, always the same; {} where they are too small for it."""
    if not len(images) or min(images.shape[1:3]) < MIN_SIDE:
        return {}
    return {kind: corrupted(images, kind, seed=0) for kind in CORRUPTIONS}


def median_separation(separations: Sequence[float]) -> float:
    """Of several kinds the median separation: a kind that everything finds, or nothing, says little of a score."""
    return float(np.median(separations))


def separation(scores: np.ndarray, corrupted_scores: np.ndarray) -> float:
    """AUC of the corrupted images' scores against the originals', greater = more anomalous; 0.5 tells nothing."""
    from sklearn.metrics import roc_auc_score  # a second, which scoring with a kept calibration does without

    labels = np.arange(len(scores) + len(corrupted_scores)) >= len(scores)
    return float(roc_auc_score(labels, np.concatenate([scores, corrupted_scores])))
