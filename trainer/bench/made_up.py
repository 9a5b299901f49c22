"""Images to measure with where no dataset is named."""

from __future__ import annotations

import numpy as np


class MadeUpImages:
    """Images of noise in memory, as a training set."""

    def __init__(self, resolution: int, channels: int) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (512, resolution, resolution, channels), np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def at(self, positions: np.ndarray) -> np.ndarray:
        return self.images[self.samples(positions)]

    def samples(self, positions: np.ndarray) -> np.ndarray:
        return positions % len(self.images)
