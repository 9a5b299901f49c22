"""How far an exported folder's scores are from ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.export.standalone import Detector
from trainer.scoring.detector import Detector as Ours
from trainer.scoring.ensemble import Ensemble


def difference(detector: Ours | Ensemble, folder: Path, images: np.ndarray) -> float:
    """The greatest difference of a folder's numbers from ours, relative to their size or, if greater, the median's.

    Of every term, and of the score that follows from our terms: ranks among the training images may turn over a
    difference in the last digit.
    """
    carried = Detector(folder)
    scored, ours, terms = carried.score(images), detector.score(images), detector.all_terms(images)
    pairs = [(scored[name], terms[name]) for name in terms]
    pairs += [(carried.joined(terms), ours.score)]
    return max(_relative(a, b) for a, b in pairs)


def _relative(theirs: np.ndarray, ours: np.ndarray) -> float:
    size = np.maximum(np.abs(ours), np.median(np.abs(ours)))
    return float(np.max(np.abs(theirs - ours) / np.maximum(size, np.finfo(np.float32).tiny)))
