"""Defects with known masks, pasted into images: scratches, blobs, patches of texture, pieces of other images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Draw = np.random.Generator


def _scratch(image: np.ndarray, other: np.ndarray, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """A straight line, a third to two thirds of the side long and about a thirtieth wide, brighter or darker."""
    side = image.shape[0]
    y, x = np.mgrid[:side, :side]
    angle, length = draw.uniform(0, np.pi), draw.uniform(1 / 3, 2 / 3) * side
    top, left = draw.uniform(0.3, 0.7, 2) * side
    along = (x - left) * np.cos(angle) + (y - top) * np.sin(angle)
    across = -(x - left) * np.sin(angle) + (y - top) * np.cos(angle)
    mask = (np.abs(along) < length / 2) & (np.abs(across) < max(side / 60, 0.8))
    return np.where(mask[..., None], image + draw.choice([-1, 1]) * draw.uniform(40, 90), image), mask


def _blob(image: np.ndarray, other: np.ndarray, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """A soft spot, brighter or darker, with a radius of a twelfth to a sixth of the side."""
    side = image.shape[0]
    y, x = np.mgrid[:side, :side]
    top, left = draw.uniform(0.2, 0.8, 2) * side
    radius = draw.uniform(1 / 12, 1 / 6) * side
    height = np.exp(-((x - left) ** 2 + (y - top) ** 2) / radius**2)
    return image + (draw.choice([-1, 1]) * draw.uniform(40, 90) * height)[..., None], height > 0.37


def _square(side: int, draw: Draw) -> tuple[slice, slice, np.ndarray]:
    size = int(draw.uniform(1 / 5, 1 / 3) * side)
    top, left = draw.integers(0, side - size + 1, 2)
    mask = np.zeros((side, side), bool)
    mask[top : top + size, left : left + size] = True
    return slice(top, top + size), slice(left, left + size), mask


def _texture(image: np.ndarray, other: np.ndarray, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """A square of stripes, two to four pixels a period, added to the image."""
    side = image.shape[0]
    rows, columns, mask = _square(side, draw)
    y, x = np.mgrid[:side, :side]
    angle, period = draw.uniform(0, np.pi), draw.uniform(2, 4) * side / 32
    stripes = 30 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    result = image.copy()
    result[rows, columns] += stripes[rows, columns, None]
    return result, mask


def _cut_paste(image: np.ndarray, other: np.ndarray, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """A square of another normal image, from another place."""
    side = image.shape[0]
    rows, columns, mask = _square(side, draw)
    top, left = draw.integers(0, side - (rows.stop - rows.start) + 1, 2)
    result = image.copy()
    size = rows.stop - rows.start
    result[rows, columns] = other[top : top + size, left : left + size]
    return result, mask


DEFECTS: dict[str, Callable[[np.ndarray, np.ndarray, Draw], tuple[np.ndarray, np.ndarray]]] = {
    "scratch": _scratch,
    "blob": _blob,
    "texture": _texture,
    "cut-paste": _cut_paste,
}


def with_defects(images: np.ndarray, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 N x H x H x C -> images with one defect each, and masks: bool N x H x H."""
    made, masks = np.empty_like(images), np.zeros(images.shape[:3], bool)
    for i, image in enumerate(images):
        other = images[(i + 1) % len(images)].astype(np.float64)
        draw = np.random.default_rng((seed, list(DEFECTS).index(kind), i))
        changed, masks[i] = DEFECTS[kind](image.astype(np.float64), other, draw)
        made[i] = np.rint(np.clip(changed, 0, 255))
    return made, masks
