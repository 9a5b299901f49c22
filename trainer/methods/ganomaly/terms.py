"""recoded: how far the code of an image is from that of its reconstruction."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainer.scoring.terms.base import Response, Term


def _recoded(response: Response) -> Tensor:
    networks: Any = response.trained.networks
    codes, again = networks["encoder"](response.queries), networks["encoder_again"](response.matches)
    return (codes - again).square().mean(dim=1)


RECODED = Term(
    "recoded", "mean squared difference of the codes of an image and of its reconstruction", _recoded, ("reconstruct",)
)
