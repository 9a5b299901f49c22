"""Contamination: which anomalies a training set of a given gamma holds.

All normal images are kept; N_a = floor(gamma N_n / (1 - gamma)) anomalies join them (Berg et al. 2019, section 4),
the first N_a of one seeded order, so that the anomalies at 1 % are among those at 2 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from data_tools.errors import UserError
from data_tools.reader import Dataset
from data_tools.sources.common import shuffled


@dataclass(frozen=True)
class TrainingSet:
    """Normal images (or unlabelled ones, whatever they are), then the chosen anomalies.

    normals, anomalies: uint8, N x H x W x C; chosen: indices of anomalies, int64.
    """

    normals: np.ndarray
    anomalies: np.ndarray
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.normals) + len(self.chosen)

    def gather(self, samples: np.ndarray) -> np.ndarray:
        """Images (uint8, len(samples) x H x W x C) of the samples 0 .. len(self) - 1."""
        n = len(self.normals)
        contaminated = samples >= n
        if not contaminated.any():
            return self.normals[samples]
        batch = np.empty((len(samples), *self.normals.shape[1:]), np.uint8)
        batch[~contaminated] = self.normals[samples[~contaminated]]
        batch[contaminated] = self.anomalies[self.chosen[samples[contaminated] - n]]
        return batch


def contaminants(normals: int, gamma: float) -> int:
    """N_a = floor(gamma N_n / (1 - gamma)), in exact arithmetic on gamma as it is written."""
    share = Fraction(str(gamma))
    return int(share * normals / (1 - share))


def check_gamma(dataset: Dataset, gamma: float) -> None:
    """Raise UserError when gamma is out of range or asks for more anomalies than the dataset has."""
    if not 0 <= gamma < 1:
        raise UserError(f"--gamma {gamma} is outside [0, 1) - give the share of anomalies, e.g. 0.02")
    normals, there = dataset.count("train-normal") or dataset.count("train-unlabelled"), dataset.count("train-anomaly")
    wanted = contaminants(normals, gamma)
    if wanted > there:
        most = there / (there + normals)
        raise UserError(
            f"--gamma {gamma} needs {wanted} anomalous training images, but {dataset.storage.url} has {there}"
            f" - give at most {int(most * 1e4) / 1e4}"
        )


def training_set(dataset: Dataset, gamma: float, seed: int) -> TrainingSet:
    """The images to train on at contamination gamma. Raises UserError as `check_gamma` does."""
    check_gamma(dataset, gamma)
    normals = dataset.images("train-normal" if dataset.count("train-normal") else "train-unlabelled")
    order = shuffled(dataset.count("train-anomaly"), seed, "contamination")
    return TrainingSet(normals, dataset.images("train-anomaly"), order[: contaminants(len(normals), gamma)])
