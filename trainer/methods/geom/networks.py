"""GEOM's classifier, and what it says of training images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.networks.base import NetworkSet
from trainer.networks.wide_residual import WideResidual
from trainer.training.sweep import Found


class Usual(Found):
    """What the classifier says of training images under each transform: Dirichlet distributions, found by a fit.

    alphas: T x T, a row a transform; ones before the fit, by which all that is said is equally likely.
    """

    alphas: Tensor

    def __init__(self, transforms: int) -> None:
        super().__init__()
        self.register_buffer("alphas", torch.ones(transforms, transforms))


@dataclass(frozen=True)
class GeomNetworks(NetworkSet):
    """The classifier, and its fit."""

    classifier: WideResidual
    usual: Usual

    @staticmethod
    def build(channels: int, depth: int, width: int, transforms: int, seed: int) -> GeomNetworks:
        """Freshly drawn networks, a function of the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return GeomNetworks(WideResidual(channels, depth, width, transforms), Usual(transforms))
