"""Encoder and decoder of Deep SVDD, and the sphere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.networks.base import NetworkSet
from trainer.networks.lenet import LeNet, LeNetDecoder
from trainer.training.sweep import Found


class Sphere(Found):
    """The centre that codes are drawn to, code size, and the radius of a soft boundary."""

    centre: Tensor
    radius: Tensor

    def __init__(self, code_size: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(code_size))
        self.register_buffer("radius", torch.zeros(()))

    def distances(self, codes: Tensor) -> Tensor:
        """||code - centre||^2, N x code size to N."""
        return (codes - self.centre).square().sum(dim=1)


@dataclass(frozen=True)
class SvddNetworks(NetworkSet):
    """Encoder, decoder and sphere, at the final resolution."""

    encoder: LeNet
    decoder: LeNetDecoder
    sphere: Sphere

    @staticmethod
    def build(resolution: int, channels: int, width: int, code_size: int, seed: int) -> SvddNetworks:
        """Freshly drawn networks, a function of the seed alone."""
        sizes = (resolution, channels, width, code_size)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return SvddNetworks(LeNet(*sizes), LeNetDecoder(*sizes), Sphere(code_size))
