"""Which terms have a say in `fused` on a set, without labels: those that tell synthetic anomalies from their originals.

A term that points the wrong way on a set would cost much there. How much each tells was tried as its weight, and
misled on real images, whose anomalies are none of the made ones: see tuning/results/terms.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainer.scoring.comparison import compared, kept_of
from trainer.scoring.inference import Inference, Values
from trainer.scoring.synthetic import median_separation, of_each_kind, separation
from trainer.scoring.terms.base import Term

JUDGED = 512
"""Training images, at most, that are corrupted, once by each kind."""
Columns = dict[str, np.ndarray]


def judged_of(count: int) -> int:
    """How many of so many training images, the first ones, anomalies are made of: half of them at most."""
    return min(JUDGED, count // 2)


def synthetic_terms(
    inference: Inference, terms: Sequence[Term], images: np.ndarray, values: Values
) -> tuple[Columns, dict[str, Columns]]:
    """The terms of training images, and by kind those of synthetic anomalies made from them; {} where they are small.

    images: the first m = `judged_of(n)` of n training images, uint8 m x H x W x C; values: those of all n. What terms
    compare with is made of the other n - m, else an anomaly would profit from its original among them.
    """
    m = len(images)
    kept = kept_of(terms, values.part(slice(m, None)))
    made = {kind: compared(terms, inference.values(each, terms), kept) for kind, each in of_each_kind(images).items()}
    return compared(terms, values.part(slice(0, m)), kept), made


def trusted(
    terms: Sequence[Term], usual: Mapping[str, np.ndarray], made: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """The weight of each term in `fused`, 1 or 0, as of `weights_by`; 0 for terms that have no say on any set.

    usual: terms of training images; made: those of synthetic anomalies made from these, as of `synthetic_terms`.
    """
    with_say = [term.name for term in terms if term.has_say and term.name in usual] or list(usual)
    if not made:
        return {name: float(name in with_say) for name in usual}
    result = {
        name: median_separation([separation(usual[name], each[name]) for each in made.values()]) for name in with_say
    }
    return dict.fromkeys(usual, 0.0) | weights_by(result)


def weights_by(separations: Mapping[str, float]) -> dict[str, float]:
    """1 for each term whose separation of synthetic anomalies (AUC) is above 0.5, 0 for others; all 1 where none is."""
    weights = {name: float(value > 0.5) for name, value in separations.items()}
    return weights if any(weights.values()) else dict.fromkeys(weights, 1.0)
