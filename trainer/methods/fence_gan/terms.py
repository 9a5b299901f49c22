"""doubt: how little the discriminator takes an image for real."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainer.scoring.terms.base import Response, Term


def _doubt(response: Response) -> Tensor:
    """1 - D(x), as -log D(x) / (1 - D(x)): of the same order, and it does not round to 0 or 1."""
    discriminator: Any = response.trained.networks["discriminator"]
    return -discriminator(response.queries)


DOUBT = Term("doubt", "the discriminator's logit that an image is real, negated", _doubt)
