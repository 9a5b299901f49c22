"""How much junk is in a training set: a bound on its share, without labels. Arithmetic on scores, no networks.

Scores alone do not say where normal images end and junk begins: a set with rare normal images and one with junk look
alike (Genovese and Wasserman 2004 on what of a mixture can be known). What can be said is how much junk there can be
at most, if it is at least as easy to see as synthetic anomalies made from the set's own images: that many would score
higher than there are images that do. Trials of other estimates are in tuning/results/junk_share.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLINGS = 500
COVERAGE = 0.98
"""At each threshold: all of them are some five that differ, of which the least is taken, so that 90 % are left."""
MIN_SHARE = 1e-3
"""Of junk that is thought of: a few images in thousands are in any set."""
MAX_SHARE = 0.25
"""A bound above it says nothing that a user did not know."""
MIN_IMAGES = 200
LEVELS = np.geomspace(0.5, 0.002, 24)
"""Shares of training images above a threshold, at which the bound is sought."""


@dataclass(frozen=True)
class JunkShare:
    """The share of junk among the training images is between 0 and `most`, 90 % sure; `expected` is the mean of that.

    Both in [0, 1], and None where nothing can be said; reason: why, else empty.
    """

    most: float | None
    expected: float | None
    reason: str = ""

    def sentence(self) -> str:
        """For a person."""
        if self.most is None or self.expected is None:
            return f"How many training images are junk cannot be told: {self.reason}."
        return (
            f"If junk is as easy to see as synthetic anomalies made from the training images, at most "
            f"{100 * self.most:.2g} % of them are junk, and {100 * self.expected:.2g} % as a guess."
        )


def junk_share(known: np.ndarray, made: Mapping[str, np.ndarray], seed: int = 0) -> JunkShare:
    """A bound on the share c of junk among training images.

    known: scores of n training images; made: of m anomalies of each kind, the i-th of each made of the same image.

    At a threshold that a share S of the training images exceeds, and a share p of the synthetic anomalies, c p <= S, if
    junk exceeds it as often. So c <= S / p, at every threshold; the least of these counts, each at the 98th percentile
    of resamplings of both. expected: the mean of a share whose logarithm is uniform from 0.001, or one image, up to it.
    """
    if not made:
        return JunkShare(None, None, "no anomalies were made of them")
    if len(known) < MIN_IMAGES:
        return JunkShare(None, None, f"{len(known)} of them are too few, {MIN_IMAGES} are needed")
    ascending = np.sort(known)
    above = np.unique(np.round(LEVELS * len(known)).astype(int))[::-1]  # as many exceed each threshold, or fewer
    limits = ascending[len(known) - 1 - above]
    exceed = np.mean([scores[:, None] > limits for scores in made.values()], axis=0)  # m x thresholds
    between = np.diff(np.searchsorted(ascending, limits, side="right"), prepend=0, append=len(known))
    draw = np.random.default_rng(seed)
    known_counts = draw.multinomial(len(known), between / len(known), RESAMPLINGS)
    shares = 1 - known_counts.cumsum(axis=1)[:, :-1] / len(known)
    images = draw.multinomial(len(exceed), np.full(len(exceed), 1 / len(exceed)), RESAMPLINGS)
    powers = images @ exceed / len(exceed)
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.where(powers > 0, np.maximum(shares, 1 / len(known)) / powers, np.inf)
    most = float(np.quantile(bounds, COVERAGE, axis=0, method="higher").min())
    if most > MAX_SHARE:
        return JunkShare(None, None, "synthetic anomalies made from them hardly score higher than they do")
    least = max(MIN_SHARE, 1 / len(known))
    most = max(most, least)
    return JunkShare(most, (most - least) / math.log(most / least) if most > least else most)
