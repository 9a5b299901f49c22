"""What an exported folder says of a score: how its terms are joined, what they are, and the training images'."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_tools.errors import UserError
from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble, own_name
from trainer.scoring.join import FUSED, SUMMED, weights


@dataclass(frozen=True)
class Parts:
    """by: `fused` or `reviewed` for a sum of weights times -log p, else one of weights times terms.

    Of the terms, by name: meanings, known: those of n training images.
    """

    by: str
    weights: dict[str, float]
    meanings: dict[str, str]
    known: dict[str, np.ndarray]


def parts_of(detector: Detector | Ensemble) -> Parts:
    """Of a detector's score; UserError for one of several runs that a folder cannot join."""
    by = detector.criterion.by
    if isinstance(detector, Detector):
        joined = detector.calibrated.weights if by in SUMMED else weights(by, detector.criterion.lam)
        return Parts(by, joined, detector.meanings, detector.known_terms)
    if by == "a":
        raise UserError("--by a: of several runs a folder joins -log p of terms - give fused, or one term")
    members = list(detector.members.items())
    counts = {len(member.known) for _, member in members}
    if len(counts) > 1:
        raise UserError(f"RUN,RUN: were calibrated on {sorted(counts)} images - export runs on equally many")
    result = Parts(FUSED, {}, {}, {})
    for number, (name, member) in enumerate(members):
        own = member.calibrated.weights if by in SUMMED else {by: 1.0}
        for term, known in member.known_terms.items():
            called = own_name(number, term)
            result.weights[called] = own.get(term, 0.0) / len(members)
            result.meanings[called] = f"{member.meanings[term]} (run {name})"
            result.known[called] = known
    return result
