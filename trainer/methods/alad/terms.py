"""pair: how much a discriminator of two images sees that the reconstruction is not the image."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainer.scoring.terms.base import Response, Term


def _pair(response: Response) -> Tensor:
    """The L1 distance of the features of (x, x) and of (x, G(E(x)))."""
    of_images: Any = response.trained.networks["average_of_images"]
    itself, _ = of_images(response.queries, response.queries)
    other, _ = of_images(response.queries, response.matches)
    return (itself - other).abs().sum(dim=1)


PAIR = Term(
    "pair",
    "difference of the pairs (image, image) and (image, reconstruction) in a discriminator's features",
    _pair,
    needs=("reconstruct",),
)
