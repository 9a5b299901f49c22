"""The order of samples: a pure function of seed and epoch, so a restart at any position needs no replay.

Positions are global and endless (int64, ascending, at least one). Samples 0 .. normals - 1 are the normal images in
the order of their shards; normals .. n - 1 are the chosen anomalies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

KEPT_EPOCHS, KEPT_WINDOWS = 2, 4  # a batch may straddle a boundary, and a reader may decode a little ahead


def _random(seed: int, epoch: int, stream: int = 0) -> np.random.Generator:
    """An independent generator per (seed, epoch, stream): draws never carry into the counter's highest word."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, stream]))


class SampleOrder:
    """Position p to a sample: place p % n in epoch p // n's permutation of n samples. seed: 0 .. 2**63 - 1."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed = n, seed
        self._permutations: dict[int, np.ndarray] = {}

    def samples(self, positions: np.ndarray) -> np.ndarray:
        """Global positions (int64, ascending) to samples (int64, same length)."""
        first, last = int(positions[0]) // self.n, int(positions[-1]) // self.n
        wanted, known = range(first, last + 1), self._permutations
        known = {e: known[e] if e in known else _random(self.seed, e).permutation(self.n) for e in wanted}
        self._permutations = known
        if first == last:
            return known[first][positions - first * self.n]
        epochs, places = np.divmod(positions, self.n)
        return np.concatenate([known[e][places[epochs == e]] for e in wanted])


class Part(NamedTuple):
    """The positions of one batch that fall in one window.

    where: which of the batch's positions; rows: int64, one for each of them. A row r >= 0 is row r of the window's
    shards laid one after another in the order of `WindowedOrder.windows`; r < 0 is chosen anomaly -r - 1.
    """

    epoch: int
    window: int
    where: slice
    rows: np.ndarray


class _Epoch(NamedTuple):
    shards: np.ndarray  # in order of use, as the anomalies
    anomalies: np.ndarray
    starts: np.ndarray  # of the windows, in the epoch; the last is n
    anomaly_starts: np.ndarray


class _Window(NamedTuple):
    rows: np.ndarray  # in order of use
    ends: np.ndarray  # of the shards, in the decoded array
    shifts: np.ndarray  # from a row of each shard to its sample


class WindowedOrder:
    """An order that needs only `window` shards at a time, for datasets too large to be decoded whole.

    In each epoch the shards are permuted; each run of `window` forms a window (the last may be shorter). The permuted
    anomalies are shared out in proportion to the windows' normal images, to within one, and all samples of a window
    are permuted together. Memory grows with a window and the numbers of shards and anomalies, not with n.

    shards: samples in each normal shard; anomalies: how many were chosen; seed: 0 .. 2**63 - 1; window: shards in a
    window, where any number from len(shards) on means one window per epoch. Raises ValueError when window < 1 or
    the shards hold no samples.
    """

    def __init__(self, shards: Sequence[int], anomalies: int, seed: int, window: int) -> None:
        self.sizes = np.asarray(shards, np.int64)
        self.normals = int(self.sizes.sum())
        if window < 1 or self.normals < 1:
            raise ValueError(f"a window of {window} shards over {self.normals} normal samples: both must be at least 1")
        self.anomalies, self.n, self.seed = anomalies, self.normals + anomalies, seed
        self.window = min(window, len(self.sizes))
        self._shard_starts = np.cumsum(self.sizes) - self.sizes
        self._epochs: dict[int, _Epoch] = {}
        self._windows: dict[tuple[int, int], _Window] = {}

    def samples(self, positions: np.ndarray) -> np.ndarray:
        """Global positions (int64, ascending) to samples (int64, same length)."""
        samples = np.empty(len(positions), np.int64)
        for epoch, number, where, rows in self.split(positions):
            _, ends, shifts = self._window(epoch, number)
            normal = rows + shifts[ends.searchsorted(rows, "right")]  # meaningless, yet in range, for an anomaly
            samples[where] = np.where(rows < 0, self.normals - 1 - rows, normal)
        return samples

    def windows(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        """The indices of the shards in each window of an epoch, in order of use."""
        shards = self._epoch(epoch).shards.tolist()
        return tuple(tuple(shards[i : i + self.window]) for i in range(0, len(shards), self.window))

    def window_at(self, position: int) -> tuple[int, int]:
        """The epoch of a global position, and the number of its window there."""
        epoch, place = divmod(int(position), self.n)
        return epoch, int(self._epoch(epoch).starts.searchsorted(place, "right")) - 1

    def split(self, positions: np.ndarray) -> list[Part]:
        """Global positions (int64, ascending) as rows to read: one part for each window they touch, in order."""
        parts, begin = [], 0
        while begin < len(positions):
            epoch, number = self.window_at(positions[begin])
            first, end = epoch * self.n + self._epoch(epoch).starts[number : number + 2]
            stop = len(positions) if positions[-1] < end else int(positions.searchsorted(end))
            rows = self._window(epoch, number).rows[positions[begin:stop] - first]
            parts.append(Part(epoch, number, slice(begin, stop), rows))
            begin = stop
        return parts

    def _epoch(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            shards = _random(self.seed, epoch).permutation(len(self.sizes))
            anomalies = _random(self.seed, epoch, 1).permutation(self.anomalies)
            normals = np.append(0, np.add.reduceat(self.sizes[shards], np.arange(0, len(shards), self.window)).cumsum())
            # rounding the running total, not each share, keeps every window within one of its share
            shared = (normals * self.anomalies + self.normals // 2) // self.normals
            _keep(self._epochs, epoch, _Epoch(shards, anomalies, normals + shared, shared), KEPT_EPOCHS)
        return self._epochs[epoch]

    def _window(self, epoch: int, number: int) -> _Window:
        if (epoch, number) not in self._windows:
            order = self._epoch(epoch)
            shards = order.shards[number * self.window : (number + 1) * self.window]
            ends = self.sizes[shards].cumsum()
            shifts = self._shard_starts[shards] - (ends - self.sizes[shards])
            chosen = order.anomalies[slice(*order.anomaly_starts[number : number + 2])]
            rows = np.concatenate([np.arange(ends[-1]), -chosen - 1])
            _random(self.seed, epoch, 2 + number).shuffle(rows)
            _keep(self._windows, (epoch, number), _Window(rows, ends, shifts), KEPT_WINDOWS)
        return self._windows[epoch, number]


def _keep(known: dict, key: object, value: object, most: int) -> None:
    """Add to a dictionary and drop its oldest entries beyond `most`."""
    known[key] = value
    while len(known) > most:
        del known[next(iter(known))]
