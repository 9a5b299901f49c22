"""L_m: how unusual the direction of the critic's features is among those of the training images.

Each query is brought to the usual mean and contrast first. Else what is faint or plain comes to lie near the mean of
all features, and counts as the most normal of all; see tuning/results/terms.md.

A Gaussian fitted to features of a trained network is what Lee et al. (2018) and Rippel et al. (2021) judge by; here the
network is the critic, which has seen nothing but the contaminated images and the generator's. Ours, not the paper's.
"""

from __future__ import annotations

from torch import Tensor

from trainer.scoring.gaussian import gaussian, mahalanobis
from trainer.scoring.terms.base import Compared, Response

MAX_FEATURES = 512
"""Neighbouring features are averaged until no more are left: a covariance of more is slow and badly known."""


def directions_of_features(response: Response) -> Tensor:
    """The critic's features of each query by itself, few enough and of unit length: N x F."""
    features = response.features(response.standardised)
    size = features.shape[1]
    run = next(n for n in range(1, size + 1) if size % n == 0 and size // n <= MAX_FEATURES)
    few = features.view(-1, size // run, run).mean(dim=2)
    return few / few.norm(dim=1, keepdim=True).clamp_min(1e-12)


TERM = Compared(
    "L_m",
    "Mahalanobis distance of the direction of the critic's features among the training images'",
    directions_of_features,
    needs=("features",),
    kept_as="features",
    kept=gaussian,
    distance=mahalanobis,
    row_each=False,
)
