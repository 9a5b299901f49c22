"""Which terms have a say in `fused` on a set, without labels: those that tell made anomalies from their originals.

A term that points the wrong way on a set would cost much there. How much each tells was tried as its weight, and
misled on real images, whose anomalies are none of the made ones: see tuning/results/steadiness.md.
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


def made_terms(
    inference: Inference, terms: Sequence[Term], images: np.ndarray, kept: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """The terms of anomalies made of training images, by kind; of none where the images are too small for them.

    images: uint8 N x H x W x C, of which the first 512 are corrupted; kept: what terms that compare with training
    images keep of them.
    """
    judged = images[:JUDGED]
    if min(judged.shape[1:3]) < LEAST_SIDE:
        return {}
    return {
        kind: compared(terms, inference.values(corrupted(judged, kind, seed=0), terms), kept) for kind in CORRUPTIONS
    }


def trusted(
    terms: Sequence[Term], usual: Mapping[str, np.ndarray], made: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """The weight of each term in `fused`, 1 or 0, as of `weights_by`; 0 for terms that have no say on any set.

    usual: terms of training images; made: those of anomalies made of the first of these, as of `made_terms`.
    """
    with_say = [term.name for term in terms if term.has_say and term.name in usual] or list(usual)
    if not made:
        return {name: float(name in with_say) for name in usual}
    found = {
        name: told_apart([separation(usual[name][: len(each[name])], each[name]) for each in made.values()])
        for name in with_say
    }
    return dict.fromkeys(usual, 0.0) | weights_by(found)


def weights_by(separations: Mapping[str, float]) -> dict[str, float]:
    """1 for each term whose separation of made anomalies (AUC) is above 0.5, 0 for others; all 1 where none is."""
    weights = {name: float(value > 0.5) for name, value in separations.items()}
    return weights if any(weights.values()) else dict.fromkeys(weights, 1.0)
