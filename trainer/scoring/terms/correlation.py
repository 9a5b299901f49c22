"""L_c: how much of an image's pattern its closest match lacks, whatever the brightness and contrast of either.

L_n scales an image by its extreme pixels, so that a single bright one hides the rest; a correlation hears all pixels.
Ours, not the paper's; see tuning/results/detail.md.
"""

from __future__ import annotations

from torch import Tensor

from trainer.scoring.terms.base import RESIDUAL, Term

MIN_NORM = 1e-3
"""Below it an image counts as constant: it correlates with nothing. One pixel of another grey level has .008."""


def correlation_distance(images: Tensor, others: Tensor) -> Tensor:
    """sqrt(2 - 2 r), r the correlation over pixels and channels: N x C x r x r each -> N, in [0, 2]; constant: 1."""
    return (_unit(images) - _unit(others)).norm(dim=1)


def _unit(images: Tensor) -> Tensor:
    centred = images.flatten(1) - images.flatten(1).mean(1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True).clamp_min(MIN_NORM)


TERM = Term(
    "L_c",
    "correlation distance of an image from its closest match",
    lambda response: correlation_distance(response.queries, response.matches),
    needs=("reconstruct",),
    family=RESIDUAL,
)
