"""d: how far an image's code is from the centre."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainer.methods.svdd.step import normalised
from trainer.scoring.terms.base import Response, Term


def _distance(response: Response) -> Tensor:
    networks: Any = response.trained.networks
    return networks["sphere"].distances(networks["encoder"](normalised(response.queries)))


DISTANCE = Term("d", "squared distance of an image's code from the centre of all", _distance)
