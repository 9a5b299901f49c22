"""From scores to verdicts: thresholds, and how sure they are. Arithmetic on scores, no networks.

Training images are contaminated, so what is said of a threshold says what that does to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_tools.errors import UserError

RESAMPLINGS = 1000
COVERAGE = 0.95

Kind = Literal["false-alarms", "contamination"]


@dataclass(frozen=True)
class Threshold:
    """A score above which images are called anomalous, and its 95 % bootstrap intervals.

    kind, share: what was asked for: "false-alarms", the share of normal images that may be called anomalous; or
    "contamination", the share of anomalies that is expected among the training images. value: the threshold; low,
    high: where it would lie for other training images of the same kind. images: how many it is found on. alarms_low,
    alarms_high: between which the share of `judged` further images lies that exceed it, if they are like the training
    images.
    """

    kind: Kind
    share: float
    value: float
    low: float
    high: float
    images: int
    judged: int
    alarms_low: float
    alarms_high: float

    def sentences(self) -> str:
        """What it means, for a person."""
        percent = 100 * self.share
        above = (
            f"Above {self.value:.4g} (95 % interval {self.low:.4g} to {self.high:.4g}, from {self.images:,} training "
            f"images) an image is called anomalous."
        )
        alarms = (
            f"Among {self.judged:,} further images like the training images {100 * self.alarms_low:.2g} to "
            f"{100 * self.alarms_high:.2g} % exceed it."
        )
        if self.kind == "contamination":
            return (
                f"{above} That calls as many training images anomalous as are expected to be, {percent:.3g} %; whether "
                f"they are the right ones depends on the score. {alarms} Where fewer are anomalous than expected, the "
                f"rest are false alarms."
            )
        return (
            f"{above} {alarms} Normal images exceed it no more often than {percent:.3g} % / (1 - c), where c is the "
            f"unknown share of anomalies among the training images: at c = 5 %, {percent / 0.95:.3g} %. Anomalies that "
            f"score high among the training images raise it: fewer false alarms, and more is missed."
        )


def threshold(known: np.ndarray, kind: Kind, share: float, judged: int = 1000, seed: int = 0) -> Threshold:
    """The threshold for a share, on M scores of training images; score > value is the same as p <= share.

    judged: the number of further images that the interval of alarms speaks of. Raises UserError when the share is out
    of (0, 1), or so small that M images cannot tell.
    """
    if not 0 < share < 1:
        raise UserError(f"--{kind} {share} is outside (0, 1) - give a share, e.g. 0.01")
    above = math.floor(share * (len(known) + 1) + 1e-9)  # training images that stay above, and one
    if above < 1:
        raise UserError(
            f"--{kind} {share} is too small for {len(known)} training images - give {1 / (len(known) + 1):.2g} or more"
        )
    ascending, count = np.sort(known), len(known)
    value = float(ascending[count - above])
    draw = np.random.default_rng(seed)
    # A resampling is n uniform draws of places; the m-th of them in order is a draw of Beta(m, n - m + 1).
    places = np.floor(count * draw.beta(above, count - above + 1, RESAMPLINGS)).astype(int)
    values = ascending[count - 1 - np.minimum(places, count - 1)]
    exceeding = 1 - np.searchsorted(ascending, values, side="right") / count
    alarms = draw.binomial(judged, exceeding) / judged
    ends = [50 * (1 - COVERAGE), 50 * (1 + COVERAGE)]
    (low, high), (fewest, most) = np.percentile(values, ends), np.percentile(alarms, ends)
    return Threshold(kind, share, value, float(low), float(high), len(known), judged, float(fewest), float(most))
