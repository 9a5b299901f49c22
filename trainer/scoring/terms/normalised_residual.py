"""L_n: how badly the generator says what the encoder saw (Berg et al. 2019, eq. 2 and 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.scoring.terms.base import RESIDUAL, Term


def min_max(images: Tensor) -> Tensor:
    """w(X): each image scaled to [0, 1] over all its pixels and channels; a constant image becomes 0 everywhere."""
    flat = images.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    span = (high - low).clamp_min(torch.finfo(images.dtype).tiny)
    return ((flat - low) / span).view_as(images)


def residual_map(queries: Tensor, matches: Tensor) -> Tensor:
    """|w(Q) - w(R)|, the mean over channels: N x C x r x r each -> N x r x r, in [0, 1]."""
    return (min_max(queries) - min_max(matches)).abs().mean(1)


def normalised_residual(queries: Tensor, matches: Tensor) -> Tensor:
    """L_n = ||w(Q) - w(R)||_2 / N_X (eq. 3), N."""
    return (min_max(queries) - min_max(matches)).flatten(1).norm(dim=1) / queries[0].numel()


TERM = Term(
    "L_n",
    "normalised residual: distance of an image from its closest match, independent of contrast",
    lambda response: normalised_residual(response.queries, response.matches),
    needs=("reconstruct",),
    family=RESIDUAL,
)
