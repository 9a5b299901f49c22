"""L_i: how unusual an image's brightness, contrast and share of detail are among the training images'.

L_n, L_c and L_m compare images at one contrast, so none of them says anything of a patch that is empty, faint,
overexposed or of another ground; and a residual grows with an image's detail, so it takes what is smoother than usual
for normal. Ours, not the paper's; see tuning/results/detail.md.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from trainer.scoring.gaussian import gaussian, mahalanobis
from trainer.scoring.terms.base import Compared
from trainer.scoring.terms.correlation import correlation_distance

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SQUARES = (2, 4, 8)
"""Sides of squares, in pixels, whose means do not hold an image's detail."""


def statistics(queries: Tensor) -> Tensor:
    """`intensities` and `details` of each channel: N x C x r x r to N x (9 + S) C, S squares that fit."""
    return torch.cat([intensities(queries), details(queries)], dim=1)


def intensities(queries: Tensor) -> Tensor:
    """Mean, standard deviation and `QUANTILES` of each channel: N x C x r x r to N x 9 C, quantiles interpolated."""
    pixels = queries.flatten(2)
    ordered = pixels.sort(dim=2).values
    last = pixels.shape[2] - 1
    quantiles = []
    for share in QUANTILES:
        below = int(share * last)
        rest = share * last - below
        quantiles.append(torch.lerp(ordered[:, :, below], ordered[:, :, min(below + 1, last)], rest))
    return torch.stack([pixels.mean(dim=2), pixels.std(dim=2, unbiased=False), *quantiles], dim=2).flatten(1)


def details(queries: Tensor) -> Tensor:
    """Correlation distance of each channel from its means over squares, interpolated: N x C x r x r to N x S C."""
    channels, side = queries.shape[1], queries.shape[2]
    planes = queries.flatten(0, 1)[:, None]
    coarse = [_coarse(planes, square) for square in SQUARES if square <= side]
    distances = torch.stack([correlation_distance(planes, each) for each in coarse], dim=1)
    return distances.unflatten(0, (-1, channels)).flatten(1)


def _coarse(planes: Tensor, square: int) -> Tensor:
    return interpolate(avg_pool2d(planes, square), planes.shape[2:], mode="bilinear")


TERM = Compared(
    "L_i",
    "Mahalanobis distance of brightness, contrast, quantiles and detail of the pixels",
    lambda response: statistics(response.queries),
    needs=("reconstruct",),  # beside the residuals, which do not see them; what sees an image as it is needs no help
    kept_as="intensities",
    kept=gaussian,
    distance=mahalanobis,
    row_each=False,
    is_trained=False,
)
