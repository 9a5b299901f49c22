"""Terms that need the training images, and one score from several without a label."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 5
FUSED = ("L_n", "L_o", "D", "L_k")
"""What `fused` sums."""


def direction_distance(z_hat: np.ndarray, reference: np.ndarray, are_reference: bool = False) -> np.ndarray:
    """L_k: mean distance of z_hat / ||z_hat|| to its 5 nearest among a reference's, float64 N.

    z_hat: N x N_z; reference: M x N_z. are_reference: z_hat is the reference itself, and each row leaves itself out.
    """
    unit, known = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in (z_hat, reference))
    wanted = min(NEIGHBOURS + are_reference, len(known))
    distances, _ = NearestNeighbors(n_neighbors=wanted, algorithm="brute").fit(known).kneighbors(unit)
    return distances[:, are_reference:].mean(axis=1).astype(np.float64)


def fused(terms: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> np.ndarray:
    """The sum of the terms of FUSED, each minus its median over its interquartile range on training images.

    Both of these bear with contamination. terms: of N queries; reference: of the training images. A term that is
    constant on the training images is left out.
    """
    total = np.zeros(len(terms[FUSED[0]]))
    for name in FUSED:
        low, middle, high = np.percentile(reference[name], [25, 50, 75])
        if high > low:
            total += (terms[name] - middle) / (high - low)
    return total
