"""What a training run reads: images by global position, from an array decoded whole or from a window that moves on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from data_tools.dataset.contamination import chosen_anomalies, normal_pool
from data_tools.dataset.exclusion import Excluded, check_some_left, groups, kept_count, kept_rows
from data_tools.dataset.manifest import Shard
from data_tools.dataset.order import SampleOrder, WindowedOrder
from data_tools.dataset.reader import Dataset

BLOCK = 2048
"""Images that `all_images` gives at a time."""


class TrainingSet(Protocol):
    """Normal images (or unlabelled ones) and the chosen anomalies, in an endless sequence of shuffled epochs."""

    def __len__(self) -> int:
        """Samples in an epoch."""
        ...

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Images (uint8, N x H x W x C) at global positions (int64, ascending)."""
        ...

    def samples(self, positions: np.ndarray) -> np.ndarray:
        """Which samples, 0 .. len(self) - 1 in the order of `all_images`, lie at global positions."""
        ...


def training_set(
    dataset: Dataset, gamma: float, seed: int, window: int = 0, excluded: Excluded | None = None, planted: str = ""
) -> TrainingSet:
    """The images to train on at contamination gamma.

    window: 0 decodes all of them; K decodes K shards at a time, for datasets larger than the cache may be.
    excluded: images to do without; the anomalies are those of gamma, less the excluded ones. planted: the classes that
    these are drawn from, separated by commas; "" for all. Raises UserError when gamma is out of range or asks for more
    anomalies than there are, when nothing is left, and what `Dataset.images` raises.
    """
    excluded = excluded or {}
    chosen = chosen_rows(dataset, gamma, seed, excluded, planted)
    check_some_left(dataset, excluded)
    anomalies = dataset.images("train-anomaly") if len(chosen) else dataset.decoded(())
    if window:
        return WindowedSet(dataset, anomalies, chosen, seed, window, excluded)
    kept = kept_rows(dataset.manifest.of(normal_pool(dataset)), excluded)
    return WholeSet(dataset.images(normal_pool(dataset)), anomalies, chosen, seed, kept)


class Block(NamedTuple):
    """Some training images one after another: uint8 N x H x W x C, and pool, key and provenance of each."""

    images: np.ndarray
    origins: list[dict[str, Any]]


def all_images(
    dataset: Dataset, gamma: float, seed: int, window: int = 0, excluded: Excluded | None = None, planted: str = ""
) -> Iterator[Block]:
    """Every image of such a training set once, in blocks: the normal ones in the order of shards, then the anomalies.

    Options as of `training_set`; no more than `window` shards of normal images are decoded at a time.
    """
    pool, excluded = normal_pool(dataset), excluded or {}
    for shards in groups(dataset.manifest.of(pool), window):
        rows = kept_rows(shards, excluded)
        yield from _blocks(pool, dataset.decoded(shards), dataset.origin_lines(shards), rows)
    chosen = chosen_rows(dataset, gamma, seed, excluded, planted)
    if len(chosen):
        pool, shards = "train-anomaly", dataset.manifest.of("train-anomaly")
        yield from _blocks(pool, dataset.decoded(shards), dataset.origin_lines(shards), chosen)


def _blocks(pool: str, images: np.ndarray, origins: list[str], rows: np.ndarray) -> Iterator[Block]:
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        yield Block(images[some], [{"pool": pool, **json.loads(origins[row])} for row in some])


def chosen_rows(dataset: Dataset, gamma: float, seed: int, excluded: Excluded, planted: str) -> np.ndarray:
    """Which rows of train-anomaly join a training set, in their order; int64."""
    chosen = chosen_anomalies(dataset, gamma, seed, planted)
    if not excluded or not len(chosen):
        return chosen
    return chosen[np.isin(chosen, kept_rows(dataset.manifest.of("train-anomaly"), excluded))]


class WholeSet:
    """Everything decoded: a batch is a gather. Samples 0 .. kept - 1 are normal, then come the chosen anomalies."""

    def __init__(
        self, normals: np.ndarray, anomalies: np.ndarray, chosen: np.ndarray, seed: int, kept: np.ndarray
    ) -> None:
        """kept: which rows of `normals` are trained on, ascending."""
        # Plain views: a memmap as such makes every gather a memmap too, which costs more than the gather.
        self.normals, self.anomalies, self.chosen = normals.view(np.ndarray), anomalies.view(np.ndarray), chosen
        self.kept = kept
        self.order = SampleOrder(len(self), seed)

    def __len__(self) -> int:
        return len(self.kept) + len(self.chosen)

    def at(self, positions: np.ndarray) -> np.ndarray:
        return self.gather(self.samples(positions))

    def samples(self, positions: np.ndarray) -> np.ndarray:
        return self.order.samples(positions)

    def gather(self, samples: np.ndarray) -> np.ndarray:
        """Images of the samples 0 .. len(self) - 1, in any order."""
        n = len(self.kept)
        rows = np.where(samples < n, samples, n - 1 - samples)
        return _gather(self.normals, self.anomalies, self.chosen, _through(self.kept, rows, len(self.normals)))


class WindowedSet:
    """A window of shards decoded at a time, the next one meanwhile; all workers of a node share them."""

    def __init__(
        self, dataset: Dataset, anomalies: np.ndarray, chosen: np.ndarray, seed: int, window: int, excluded: Excluded
    ) -> None:
        self.dataset, self.anomalies, self.chosen = dataset, anomalies.view(np.ndarray), chosen
        self.excluded = excluded
        shards = dataset.manifest.of(normal_pool(dataset))
        self.shards = [shard for shard in shards if kept_count(shard, excluded)]
        self.order = WindowedOrder([kept_count(shard, excluded) for shard in self.shards], len(chosen), seed, window)
        self.ahead = ThreadPoolExecutor(1, "next-window")
        self.open: dict[tuple[int, int], Future[Decoded]] = {}

    def __len__(self) -> int:
        return self.order.n

    def at(self, positions: np.ndarray) -> np.ndarray:
        parts = self.order.split(positions)
        images = []
        for part in parts:
            normals, kept = self._window(part.epoch, part.window)
            rows = _through(kept, part.rows, len(normals))
            images.append(_gather(normals, self.anomalies, self.chosen, rows))
        return images[0] if len(images) == 1 else np.concatenate(images)

    def samples(self, positions: np.ndarray) -> np.ndarray:
        return self.order.samples(positions)

    def _window(self, epoch: int, number: int) -> Decoded:
        """The images of a window; begins with the one after it, and lets go of those before."""
        following = (epoch, number + 1) if number + 1 < len(self.order.windows(epoch)) else (epoch + 1, 0)
        for key in ((epoch, number), following):
            if key not in self.open:
                shards = [self.shards[i] for i in self.order.windows(key[0])[key[1]]]
                self.open[key] = self.ahead.submit(self._decode, shards)
        for key in [key for key in self.open if key < (epoch, number)]:
            del self.open[key]
        return self.open[epoch, number].result()

    def _decode(self, shards: list[Shard]) -> Decoded:
        return Decoded(self.dataset.decoded(shards).view(np.ndarray), kept_rows(shards, self.excluded))


class Decoded(NamedTuple):
    """The images of some shards, and which of them are trained on."""

    images: np.ndarray
    kept: np.ndarray


def _through(kept: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Rows among the kept ones of `count` images to rows among all; those below 0, the anomalies, stay."""
    return rows if len(kept) == count else np.where(rows < 0, rows, kept[np.maximum(rows, 0)])


def _gather(normals: np.ndarray, anomalies: np.ndarray, chosen: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Images of rows: r >= 0 is a normal image, r < 0 is chosen anomaly -r - 1."""
    contaminated = np.flatnonzero(rows < 0)
    if not len(contaminated):
        return normals[rows]
    batch = normals[np.maximum(rows, 0)]
    batch[contaminated] = anomalies[chosen[-rows[contaminated] - 1]]
    return batch
