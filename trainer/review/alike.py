"""Which images look alike: by themselves, brought down to 8x8 pixels and to the same contrast."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

SIDE = 8
NOISE = 8.0
"""Grey levels: images of less contrast than this are alike however their noise falls."""
GROUPED = 3000
"""Images that are grouped, the worst ones: nobody looks at more."""
PER_GROUP = 15
"""Images in a group, about."""


def features(images: np.ndarray) -> np.ndarray:
    """uint8 N x H x W x C -> float16 N x (8 x 8 x C); their distances are what `nearest` and `groups` go by."""
    n, side, _, channels = images.shape
    to = min(SIDE, side)
    small = images.reshape(n, to, side // to, to, side // to, channels).mean(axis=(2, 4), dtype=np.float32)
    flat = small.reshape(n, -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return (flat / (flat.std(axis=1, keepdims=True) + NOISE)).astype(np.float16)


def nearest(known: np.ndarray, one: int, count: int) -> np.ndarray:
    """Of N images' features the `count` images that look most like number `one`, itself apart: int64, nearest first."""
    distances = np.concatenate(
        [
            ((known[at : at + 2**16].astype(np.float32) - known[one]) ** 2).sum(axis=1)
            for at in range(0, len(known), 2**16)
        ]
    )
    distances[one] = np.inf
    count = min(count, len(known) - 1)
    first = np.argpartition(distances, count - 1)[:count] if count else np.zeros(0, np.int64)
    return first[np.argsort(distances[first], kind="stable")]


def groups(known: np.ndarray) -> np.ndarray:
    """Of N images' features, the worst image's first: the number of each image's group, from 0, int64.

    Groups are numbered by their worst member, so that the first ones come first.
    """
    count = min(max(1, len(known) // PER_GROUP), len(np.unique(known, axis=0)))
    labels = KMeans(count, max_iter=30, random_state=0).fit_predict(known.astype(np.float32))
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[inverse]
