"""Contamination: which anomalies a training set of a given gamma holds.

All normal images are kept; N_a = floor(gamma N_n / (1 - gamma)) anomalies join them (Berg et al. 2019, section 4),
the first N_a of one seeded order, so that the anomalies at 1 % are among those at 2 %. Where only some classes of
anomalies are to join, those of the others stay out of that order: what is learned about kinds that were planted, and
about kinds that were not, can so be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

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


def planted_classes(planted: str) -> tuple[str, ...]:
    """The classes that --planted names, separated by commas; none where all may join."""
    return tuple(dict.fromkeys(word.strip() for word in planted.split(",") if word.strip()))


def class_of(origin: Mapping[str, Any]) -> str:
    """An image's class, as its source says it; "" where it says none."""
    return str(origin.get("class", ""))


def _of_classes(dataset: Dataset, planted: str) -> np.ndarray:
    """Which images of train-anomaly may join: bool. UserError for a class that none of them has."""
    wanted = planted_classes(planted)
    if not wanted:
        return np.full(dataset.count("train-anomaly"), True)
    classes = np.array([class_of(origin) for origin in dataset.provenance("train-anomaly")], dtype=object)
    known = sorted({*classes})
    if unknown := [name for name in wanted if name not in known]:
        said = f"give some of {', '.join(known)}" if known else "leave it out"
        raise UserError(f"--planted {unknown[0]}: {dataset.storage.url} has no anomalies of this class - {said}")
    return np.isin(classes, wanted)


def check_gamma(dataset: Dataset, gamma: float, planted: str = "") -> None:
    """Raise UserError when gamma is out of range, asks for more anomalies than there are, or for classes unknown.

    planted: the classes of anomalies that may join, separated by commas; "" for all.
    """
    if not 0 <= gamma < 1:
        raise UserError(f"--gamma {gamma} is outside [0, 1) - give the share of anomalies, e.g. 0.02")
    normals, there = dataset.count(normal_pool(dataset)), int(_of_classes(dataset, planted).sum())
    wanted = contaminants(normals, gamma)
    if wanted > there:
        most = there / (there + normals)
        raise UserError(
            f"--gamma {gamma} needs {wanted} anomalous training images, but {dataset.storage.url} has {there}"
            f"{' of these classes' if planted_classes(planted) else ''}"
            f" - give at most {int(most * 1e4) / 1e4}"
        )


def chosen_anomalies(dataset: Dataset, gamma: float, seed: int, planted: str = "") -> np.ndarray:
    """Which images of train-anomaly join at contamination gamma: int64 indices. Raises UserError as `check_gamma`."""
    check_gamma(dataset, gamma, planted)
    order = shuffled(dataset.count("train-anomaly"), seed, "contamination")
    order = order[_of_classes(dataset, planted)[order]]
    return order[: contaminants(dataset.count(normal_pool(dataset)), gamma)]
