"""Contamination: which anomalies a training set of a given gamma holds.

All normal images are kept; N_a = floor(gamma N_n / (1 - gamma)) anomalies join them (Berg et al. 2019, section 4),
the first N_a of one seeded order, so that the anomalies at 1 % are among those at 2 %.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from data_tools.dataset.reader import Dataset
from data_tools.errors import UserError
from data_tools.sources.common import shuffled


def contaminants(normals: int, gamma: float) -> int:
    """N_a = floor(gamma N_n / (1 - gamma)), in exact arithmetic on gamma as it is written."""
    share = Fraction(str(gamma))
    return int(share * normals / (1 - share))


def normal_pool(dataset: Dataset) -> str:
    """The pool to learn from: normal images, or unlabelled ones, whatever they are."""
    return "train-normal" if dataset.count("train-normal") else "train-unlabelled"


def check_gamma(dataset: Dataset, gamma: float) -> None:
    """Raise UserError when gamma is out of range or asks for more anomalies than the dataset has."""
    if not 0 <= gamma < 1:
        raise UserError(f"--gamma {gamma} is outside [0, 1) - give the share of anomalies, e.g. 0.02")
    normals, there = dataset.count(normal_pool(dataset)), dataset.count("train-anomaly")
    wanted = contaminants(normals, gamma)
    if wanted > there:
        most = there / (there + normals)
        raise UserError(
            f"--gamma {gamma} needs {wanted} anomalous training images, but {dataset.storage.url} has {there}"
            f" - give at most {int(most * 1e4) / 1e4}"
        )


def chosen_anomalies(dataset: Dataset, gamma: float, seed: int) -> np.ndarray:
    """Which images of train-anomaly join at contamination gamma: int64 indices. Raises UserError as `check_gamma`."""
    check_gamma(dataset, gamma)
    order = shuffled(dataset.count("train-anomaly"), seed, "contamination")
    return order[: contaminants(dataset.count(normal_pool(dataset)), gamma)]
