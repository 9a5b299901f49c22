"""skipped: how far an image is from its reconstruction, in pixels and in the discriminator's features."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainer.scoring.terms.base import Response, Term

PIXEL_SHARE = 0.9
"""Weight of pixels; the rest is that of features."""


def _skipped(response: Response) -> Tensor:
    discriminator: Any = response.trained.networks["discriminator"]
    pixels = (response.queries - response.matches).square().flatten(1).mean(dim=1)
    features = (discriminator(response.queries)[0] - discriminator(response.matches)[0]).square().mean(dim=1)
    return PIXEL_SHARE * pixels + (1 - PIXEL_SHARE) * features


SKIPPED = Term(
    "skipped",
    "0.9 mean squared difference of pixels + 0.1 that of the discriminator's features",
    _skipped,
    ("reconstruct",),
)
