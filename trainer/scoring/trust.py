"""How far each term is to be trusted on a set, without labels: as far as it tells made anomalies from their originals.

A term that knows nothing of a set would dilute the others in Fisher's sum, and one that points the wrong way there
would cost more: neither has a say. Nor has one whose ranking changes from checkpoint to checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainer.scoring.comparison import compared
from trainer.scoring.inference import Inference
from trainer.scoring.made_anomalies import CORRUPTIONS, LEAST_SIDE, corrupted, separation, told_apart
from trainer.scoring.terms.base import Term

JUDGED = 512
"""Training images, at most, that are corrupted, once by each kind."""


def trusted(
    inference: Inference,
    terms: Sequence[Term],
    images: np.ndarray,
    usual: Mapping[str, np.ndarray],
    kept: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """The weight of each term, as of `weights_by`.

    images: training images, uint8 N x H x W x C, of which the first 512 are taken; usual: their terms, of at least
    these; kept: what terms that compare with training images keep of them.
    """
    judged = images[:JUDGED]
    if min(judged.shape[1:3]) < LEAST_SIDE:
        return dict.fromkeys(usual, 1.0)
    made = [compared(terms, inference.values(corrupted(judged, kind, seed=0), terms), kept) for kind in CORRUPTIONS]
    steady = [term.name for term in terms if term.steady and term.name in usual]
    found = {name: told_apart([separation(usual[name][: len(judged)], each[name]) for each in made]) for name in steady}
    return dict.fromkeys(usual, 0.0) | weights_by(found) if found else dict.fromkeys(usual, 1.0)


def weights_by(separations: Mapping[str, float]) -> dict[str, float]:
    """Separations of made anomalies (AUCs) to weights in proportion to what is above 0.5, of mean 1.

    All are 1 where none is above.
    """
    above = {name: max(value - 0.5, 0.0) for name, value in separations.items()}
    mean = sum(above.values()) / max(len(above), 1)
    return {name: value / mean if mean else 1.0 for name, value in above.items()}
