"""What a training run reads: images by global position, from an array decoded whole or from a window that moves on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

from data_tools.contamination import chosen_anomalies, normal_pool
from data_tools.manifest import Shard
from data_tools.order import SampleOrder, WindowedOrder
from data_tools.reader import Dataset


class TrainingSet(Protocol):
    """Normal images (or unlabelled ones) and the chosen anomalies, in an endless sequence of shuffled epochs."""

    def __len__(self) -> int:
        """Samples in an epoch."""
        ...

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Images (uint8, N x H x W x C) at global positions (int64, ascending)."""
        ...


def training_set(dataset: Dataset, gamma: float, seed: int, window: int = 0) -> TrainingSet:
    """The images to train on at contamination gamma.

    window: 0 decodes all of them; K decodes K shards at a time, for datasets larger than the cache may be. Raises
    UserError when gamma is out of range or asks for more anomalies than there are, and what `Dataset.images` raises.
    """
    chosen = chosen_anomalies(dataset, gamma, seed)
    anomalies = dataset.images("train-anomaly") if len(chosen) else dataset.decoded(())
    if window:
        return WindowedSet(dataset, anomalies, chosen, seed, window)
    return WholeSet(dataset.images(normal_pool(dataset)), anomalies, chosen, seed)


class WholeSet:
    """Everything decoded: a batch is a gather. Samples 0 .. normals - 1, then the chosen anomalies."""

    def __init__(self, normals: np.ndarray, anomalies: np.ndarray, chosen: np.ndarray, seed: int) -> None:
        # Plain views: a memmap as such makes every gather a memmap too, which costs more than the gather.
        self.normals, self.anomalies, self.chosen = normals.view(np.ndarray), anomalies.view(np.ndarray), chosen
        self.order = SampleOrder(len(self), seed)

    def __len__(self) -> int:
        return len(self.normals) + len(self.chosen)

    def at(self, positions: np.ndarray) -> np.ndarray:
        return self.gather(self.order.samples(positions))

    def gather(self, samples: np.ndarray) -> np.ndarray:
        """Images of the samples 0 .. len(self) - 1, in any order."""
        n = len(self.normals)
        return _gather(self.normals, self.anomalies, self.chosen, np.where(samples < n, samples, n - 1 - samples))


class WindowedSet:
    """A window of shards decoded at a time, the next one meanwhile; all workers of a node share them."""

    def __init__(self, dataset: Dataset, anomalies: np.ndarray, chosen: np.ndarray, seed: int, window: int) -> None:
        self.dataset, self.anomalies, self.chosen = dataset, anomalies.view(np.ndarray), chosen
        self.shards = dataset.manifest.of(normal_pool(dataset))
        self.order = WindowedOrder([shard.samples for shard in self.shards], len(chosen), seed, window)
        self.ahead = ThreadPoolExecutor(1, "next-window")
        self.open: dict[tuple[int, int], Future[np.ndarray]] = {}

    def __len__(self) -> int:
        return self.order.n

    def at(self, positions: np.ndarray) -> np.ndarray:
        parts = self.order.split(positions)
        images = [
            _gather(self._window(part.epoch, part.window), self.anomalies, self.chosen, part.rows) for part in parts
        ]
        return images[0] if len(images) == 1 else np.concatenate(images)

    def _window(self, epoch: int, number: int) -> np.ndarray:
        """The images of a window; begins with the one after it, and lets go of those before."""
        following = (epoch, number + 1) if number + 1 < len(self.order.windows(epoch)) else (epoch + 1, 0)
        for key in ((epoch, number), following):
            if key not in self.open:
                shards = [self.shards[i] for i in self.order.windows(key[0])[key[1]]]
                self.open[key] = self.ahead.submit(self._decode, shards)
        for key in [key for key in self.open if key < (epoch, number)]:
            del self.open[key]
        return self.open[epoch, number].result()

    def _decode(self, shards: list[Shard]) -> np.ndarray:
        return self.dataset.decoded(shards).view(np.ndarray)


def _gather(normals: np.ndarray, anomalies: np.ndarray, chosen: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Images of rows: r >= 0 is a normal image, r < 0 is chosen anomaly -r - 1."""
    contaminated = np.flatnonzero(rows < 0)
    if not len(contaminated):
        return normals[rows]
    batch = normals[np.maximum(rows, 0)]
    batch[contaminated] = anomalies[chosen[-rows[contaminated] - 1]]
    return batch
