"""The images that a sweep's trials score: the test images, or some training images where nothing is labelled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from data_tools.dataset.contamination import normal_pool
from data_tools.dataset.reader import Dataset
from trainer.scoring.evaluation import has_labels, test_images

MAX_IMAGES, SHARDS = 2000, 8
"""Training images, at most, that stand for all of them, and the shards that they come from."""


class ScoredImages(NamedTuple):
    """uint8 N x H x W x C, labels (bool, True = anomalous; None without), and where each image comes from."""

    images: np.ndarray
    labels: np.ndarray | None
    provenance: list[dict[str, Any]]


def scored_images(dataset: Dataset) -> ScoredImages:
    """The same images in the same order at each call.

    Without test images of both kinds: training images, evenly spread over shards that are evenly spread themselves, so
    that a dataset larger than the cache need not be decoded whole.
    """
    if has_labels(dataset):
        return ScoredImages(
            *test_images(dataset), dataset.provenance("test-normal") + dataset.provenance("test-anomaly")
        )
    shards = dataset.manifest.of(normal_pool(dataset))
    shards = [shards[i] for i in _spread(len(shards), SHARDS)]
    images, origins = dataset.decoded(shards), dataset.origins(shards)
    chosen = _spread(len(images), MAX_IMAGES)
    return ScoredImages(images[chosen], None, [origins[i] for i in chosen])


def _spread(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)
