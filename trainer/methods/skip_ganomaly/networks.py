"""The networks of Skip-GANomaly. Parameters of the discriminator: 1,069,700 for 32x32x3, 3,575,428 for 64x64x1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.networks.base import NetworkSet
from trainer.networks.dcgan import DcganEncoder, drawn
from trainer.networks.unet import UNet


class CodeDiscriminator(nn.Module):
    """Images to features N x F, GANomaly's codes; and by these to logits N: above 0 for real."""

    def __init__(self, resolution: int, channels: int, width: int, features: int) -> None:
        super().__init__()
        self.encoder = DcganEncoder(resolution, channels, width, features)
        self.head = drawn(nn.Conv2d(features, 1, 3, padding=1, bias=False), 0.02)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(images)
        return features, self.head(features[:, :, None, None]).flatten().float()


@dataclass(frozen=True)
class SkipNetworks(NetworkSet):
    """Both at the final resolution."""

    generator: UNet
    discriminator: CodeDiscriminator

    @staticmethod
    def build(resolution: int, channels: int, width: int, features: int, seed: int) -> SkipNetworks:
        """Freshly drawn networks, a function of the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            sizes = (resolution, channels, width)
            return SkipNetworks(UNet(*sizes), CodeDiscriminator(*sizes, features))
