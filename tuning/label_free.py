"""What scores tell without labels: against uniform images, and from run to run."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from tuning.baselines import PrincipalSpace

MIN_MASS = 0.9  # excess mass: the curve is followed down to here
MASS_RANGE = (0.9, 0.999)  # mass volume: the shares of the data that the level sets hold
CURVE_POINTS = 1001
TIE = 1e-12


def uniform_images(reference: np.ndarray, count: int, components: int, seed: int) -> np.ndarray:
    """`count` images drawn uniformly from the box that the reference's principal components span.

    uint8 N x H x W x C -> uint8 count x H x W x C. Each side of the box is the range of one coefficient over the
    reference; the pixels are then rounded and clipped. The volume of Goix (2016) needs a space of few dimensions: he
    draws features at random, here they are the first principal components.
    """
    space = PrincipalSpace.fitted(reference / 255, components)
    coordinates = space.coordinates(reference / 255)
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    drawn = np.random.default_rng(seed).uniform(low, high, (count, len(low)))
    pixels = (space.images(drawn) * 255).round().clip(0, 255)
    return pixels.astype(np.uint8).reshape(count, *reference.shape[1:])


def _share_up_to(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The share of the scores at or below each level."""
    return np.searchsorted(np.sort(scores), levels, side="right") / len(scores)


def excess_mass(scores: np.ndarray, uniform_scores: np.ndarray) -> float:
    """Area under the excess mass curve (Goix 2016), in multiples of what a score that knows nothing gets.

    scores: of the data, N; uniform_scores: of M uniform samples; greater = more anomalous. EM(t) is the maximum over
    levels u of P(s <= u) - t Leb(s <= u), where P is the share of the data and Leb the volume, 1 in all, estimated by
    (1 + uniform samples with s <= u) / (1 + M) so that it is never 0. The area runs from t = 0, where EM is 1, to the
    t where EM falls to 0.9, by the trapezoid rule. A score that knows nothing has EM(t) = 1 - t and the area 0.095, by
    which it is divided. Result in [1, M + 1], higher is better.
    """
    levels = np.unique(scores)
    mass = _share_up_to(scores, levels)
    levels, mass = levels[mass > MIN_MASS], mass[mass > MIN_MASS]  # no other level matters while EM is above 0.9
    volume = (1 + _share_up_to(uniform_scores, levels) * len(uniform_scores)) / (1 + len(uniform_scores))
    t = np.linspace(0, ((mass - MIN_MASS) / volume).max(), CURVE_POINTS)
    curve = (mass - t[:, None] * volume).max(axis=1)
    return float(np.trapezoid(curve, t) / ((1 - MIN_MASS) * (1 + MIN_MASS) / 2))


def mass_volume(scores: np.ndarray, uniform_scores: np.ndarray) -> float:
    """Mean volume of the level sets that hold 0.9 to 0.999 of the data (Goix 2016).

    Arguments as for `excess_mass`. The volume at mass alpha is the share of the uniform samples with a score at or
    below the alpha-quantile of the data's scores, the smallest score with a share of alpha at or below it. Result in
    [0, 1], lower is better; a score that knows nothing gets about 0.95.
    """
    alpha = np.linspace(*MASS_RANGE, CURVE_POINTS)
    volume = _share_up_to(uniform_scores, np.quantile(scores, alpha, method="inverted_cdf"))
    return float(np.trapezoid(volume, alpha) / (MASS_RANGE[1] - MASS_RANGE[0]))


def rank_agreement(scores: np.ndarray) -> float:
    """Mean Spearman correlation over all pairs of rows, in [-1, 1]: R x N scores of N images by R runs.

    A pair with a constant row counts as 0. NaN where R < 2: a single run has nothing to agree with.
    """
    if len(scores) < 2:
        return float("nan")
    ranks = rankdata(scores, axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(length > 0, length, 1)
    return float((unit @ unit.T)[np.triu_indices(len(scores), 1)].mean())


def chosen_lambda(lambdas: np.ndarray, criterion: np.ndarray) -> int:
    """Index of the lambda with the greatest criterion; of ties within 1e-12 the least lambda; NaN counts as least."""
    comparable = np.where(np.isnan(criterion), -np.inf, criterion)
    tied = np.flatnonzero(comparable >= comparable.max() - TIE)
    return int(tied[np.argmin(lambdas[tied])])
