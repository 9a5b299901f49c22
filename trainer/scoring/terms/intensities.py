"""L_i: how unusual an image's brightness and contrast are among the training images'.

L_n compares images that are each scaled to [0, 1], and L_m images at the usual mean and contrast, so neither says
anything of a patch that is empty, faint, overexposed or of another ground. Ours, not the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.scoring.gaussian import gaussian, mahalanobis
from trainer.scoring.terms.base import Compared

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


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


TERM = Compared(
    "L_i",
    "Mahalanobis distance of brightness, contrast and quantiles of the pixels",
    lambda response: intensities(response.queries),
    needs=("reconstruct",),  # beside L_n, which does not see them; what sees an image as it is needs no help
    kept_as="intensities",
    kept=gaussian,
    distance=mahalanobis,
    row_each=False,
    is_trained=False,
)
