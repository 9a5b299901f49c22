"""EGBAD's two scores."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from trainer.scoring.terms.base import Response, Term

DISCRIMINATION = 0.1
"""Weight of what the discriminator says; the rest is that of the pixels' difference."""


def _parts(response: Response) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of absolute differences of pixels and of features, and the doubt that the reconstruction is real: N each."""
    networks: Any = response.trained.networks
    z_hat = networks["average_encoder"](response.queries)
    own, _ = networks["average_discriminator"](response.queries, z_hat)
    features, logits = networks["average_discriminator"](response.matches, z_hat)
    pixels = (response.queries - response.matches).abs().flatten(1).sum(dim=1)
    return pixels, (own - features).abs().sum(dim=1), F.softplus(-logits)


def _by_features(response: Response) -> Tensor:
    pixels, features, _ = response.shared(lambda: _parts(response), "bigan")
    return (1 - DISCRIMINATION) * pixels + DISCRIMINATION * features


def _by_doubt(response: Response) -> Tensor:
    pixels, _, doubt = response.shared(lambda: _parts(response), "bigan")
    return (1 - DISCRIMINATION) * pixels + DISCRIMINATION * doubt


BIGAN = Term(
    "bigan",
    "difference of image and reconstruction, in pixels and in the discriminator's features",
    _by_features,
    needs=("reconstruct",),
)
BIGAN_DOUBT = Term(
    "bigan_doubt",
    "difference of image and reconstruction in pixels, and the discriminator's doubt of the latter",
    _by_doubt,
    needs=("reconstruct",),
    has_say=False,  # nearly all of it is the pixels' difference, which the other one has as well
)
