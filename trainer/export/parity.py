"""How far an exported folder's scores are from ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.export.standalone import Detector
from trainer.scoring.detector import Detector as Ours


def difference(detector: Ours, folder: Path, images: np.ndarray) -> float:
    """The greatest difference of a folder's numbers from ours, relative to their size or, if greater, the median's.

    Of every term, and of the score that follows from our terms: ranks among the training images may turn over a
    difference in the last digit.
    """
    carried = Detector(folder)
    found, ours = carried.score(images), detector.score(images)
    pairs = [(found[name], ours.terms[name]) for name in ours.terms]
    pairs += [(carried.joined(ours.terms), ours.score)]
    return max(_relative(a, b) for a, b in pairs)


def _relative(found: np.ndarray, ours: np.ndarray) -> float:
    size = np.maximum(np.abs(ours), np.median(np.abs(ours)))
    return float(np.max(np.abs(found - ours) / np.maximum(size, np.finfo(np.float32).tiny)))
