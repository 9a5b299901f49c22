"""Training images by their number, in any order: for those who look at them, not for those who train."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from data_tools.dataset.contamination import normal_pool
from data_tools.dataset.exclusion import Excluded, groups, kept_rows
from data_tools.dataset.reader import Dataset
from data_tools.dataset.training_set import chosen_rows


class ImagesBySample:
    """The images of a training set, numbered as `training_set` and `all_images` do; options as of these.

    With a window of K shards no more than K are decoded at a time, and those that were evicted since are decoded again.
    """

    def __init__(
        self, dataset: Dataset, gamma: float, seed: int, window: int, excluded: Excluded, planted: str
    ) -> None:
        self.dataset = dataset
        chosen = chosen_rows(dataset, gamma, seed, excluded, planted)
        self.parts = [
            (shards, kept_rows(shards, excluded))
            for shards in groups(dataset.manifest.of(normal_pool(dataset)), window)
        ]
        if len(chosen):
            self.parts.append((tuple(dataset.manifest.of("train-anomaly")), chosen))
        self.firsts = np.cumsum([0, *(len(rows) for _, rows in self.parts)])

    def __len__(self) -> int:
        return int(self.firsts[-1])

    @cached_property
    def lines(self) -> list[str]:
        """Pool, key and provenance of each as a line of JSON."""
        result = list[str]()
        for shards, rows in self.parts:
            lines, pool = self.dataset.origin_lines(shards), f'{{"pool": "{shards[0].pool}", '
            result += [pool + lines[row][1:] for row in rows]
        return result

    def gather(self, samples: np.ndarray) -> np.ndarray:
        """Images of some numbers (int64 K), uint8 K x H x W x C."""
        images = np.zeros((len(samples), *self.dataset.decoded(()).shape[1:]), np.uint8)
        of = np.searchsorted(self.firsts, samples, side="right") - 1
        for part in np.unique(of):
            shards, rows = self.parts[part]
            here = of == part
            images[here] = self.dataset.decoded(shards)[rows[samples[here] - self.firsts[part]]]
        return images
