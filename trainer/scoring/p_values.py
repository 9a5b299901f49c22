"""Conformal p-values: how a score stands among those of the training images."""

from __future__ import annotations

import numpy as np


def p_values(scores: np.ndarray, known: np.ndarray, is_known: np.ndarray | None = None) -> np.ndarray:
    """Conformal p-values, N: (1 + training images that score as high or higher) / (1 + training images).

    scores: N; known: M scores of training images, in any order; is_known (bool N): a score is one of these, and is
    compared with the others. Among normal images p <= x happens with a chance of at
    most x where the training images are normal, and of at most x / (1 - c) where a share c of them is not: those that
    score high only make p larger. So no image that the training set holds a share c of can be expected to get p < c.
    """
    ascending = np.sort(known)
    as_high = len(known) - np.searchsorted(ascending, scores, side="left")
    own = np.zeros(len(scores), bool) if is_known is None else is_known
    return (1 + as_high - own) / (1 + len(known) - own)
