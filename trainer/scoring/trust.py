"""How much each term has to say in `fused` on a set, without labels: by how well it tells synthetic anomalies.

Of eleven kinds the mean, since single kinds favour one term or another; a term that points the wrong way on a set has
no say there. What this rests on, and what was tried instead: tuning/results/terms.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainer.scoring.comparison import compared, kept_of
from trainer.scoring.inference import Inference, Values
from trainer.scoring.synthetic import separation
from trainer.scoring.synthetic_whole import synthetic_of
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
    made = {kind: compared(terms, inference.values(each, terms), kept) for kind, each in synthetic_of(images)}
    return compared(terms, values.part(slice(0, m)), kept), made


def trusted(
    terms: Sequence[Term], usual: Mapping[str, np.ndarray], made: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """The weight of each term in `fused`, as of `weights_by`; 1 for what takes no training, 0 for what has no say.

    usual: terms of training images; made: those of synthetic anomalies made from these, as of `synthetic_terms`.
    """
    with_say = [term.name for term in terms if term.has_say and term.name in usual] or list(usual)
    untrained = {term.name: 1.0 for term in terms if term.name in with_say and not term.is_trained}
    judged = [name for name in with_say if name not in untrained]
    told = {
        name: float(np.mean([separation(usual[name], each[name]) for each in made.values()])) if made else 0.5
        for name in judged
    }
    families = {term.name: term.family for term in terms if term.family and term.name in judged}
    return dict.fromkeys(usual, 0.0) | weights_by(told, families) | untrained


def weights_by(separations: Mapping[str, float], families: Mapping[str, str] | None = None) -> dict[str, float]:
    """2 s - 1 for each term's separation s of synthetic anomalies (AUC), at least 0, over their mean; else 1 each.

    families: of those terms that share the weight of one.
    """
    groups = [(families or {}).get(name, name) for name in separations]
    shares = [1 / groups.count(group) for group in groups]
    weights = [max(2 * value - 1, 0.0) * share for value, share in zip(separations.values(), shares, strict=True)]
    mean = sum(weights) / max(len(set(groups)), 1)
    return dict(zip(separations, [weight / mean for weight in weights] if mean else shares, strict=True))
