"""Images that no training sees, to judge training runs by without labels.

A network that has learned its images by heart tells anything from them, also what is as normal as they are. So what is
asked of a score is asked of images held out, and of synthetic anomalies made from these.
"""

from __future__ import annotations

import numpy as np

from data_tools.dataset.contamination import normal_pool
from data_tools.dataset.exclusion import written_key
from data_tools.dataset.reader import Dataset
from data_tools.sources.common import shuffled
from data_tools.storage import open_storage, write_bytes

HELD_OUT = "held_out.txt"
SHARE, MAX_IMAGES = 0.1, 256
"""Of the images, and images at most, that are held out."""


def held_out_rows(dataset: Dataset) -> np.ndarray:
    """Which images of the pool to learn from are held out, at random and always the same: int64, ascending."""
    count = dataset.count(normal_pool(dataset))
    return np.sort(shuffled(count, 0, "held out")[: min(max(int(SHARE * count), 1), MAX_IMAGES)])


def write_held_out(dataset: Dataset, url: str) -> str:
    """Write their keys under a URL as --exclude takes them; returns the list's URL."""
    origins = dataset.provenance(normal_pool(dataset))
    keys = [written_key(str(origins[row]["key"])) for row in held_out_rows(dataset)]
    write_bytes(open_storage(url), HELD_OUT, "\n".join(["# images held out of all training runs", *keys, ""]).encode())
    return f"{url}/{HELD_OUT}"


def held_out_images(dataset: Dataset) -> np.ndarray:
    """uint8 N x H x W x C."""
    return dataset.images(normal_pool(dataset))[held_out_rows(dataset)]
