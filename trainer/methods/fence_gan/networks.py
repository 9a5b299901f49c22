"""The networks of Fence GAN: 5x5 convolutions of stride 2 between R and 2x2.

Parameters for 32x32x3 at width 32, latent size 256: generator 1,341,955, discriminator 1,079,553.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.networks.base import NetworkSet

SMALLEST = 2  # the side at which images and vectors meet
SLOPE = 0.2


def maps_of(resolution: int, width: int) -> list[int]:
    """Maps at half the side, a quarter, ... down to 2x2."""
    return [width * 2**level for level in range((resolution // SMALLEST).bit_length() - 1)]


class FenceGenerator(nn.Module):
    """z, N x latent size, to images N x channels x R x R in [-1, 1], float32 under autocast."""

    def __init__(self, resolution: int, channels: int, width: int, latent_size: int) -> None:
        super().__init__()
        maps = maps_of(resolution, width)[::-1]
        self.dense = nn.Linear(latent_size, maps[0] * SMALLEST**2)
        layers: list[nn.Module] = [nn.Unflatten(1, (maps[0], SMALLEST, SMALLEST))]
        for i, o in pairwise([*maps, channels]):
            doubling = nn.ConvTranspose2d(i, o, 5, stride=2, padding=2, output_padding=1)
            layers += [nn.BatchNorm2d(i), nn.LeakyReLU(SLOPE), doubling]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(self.dense(z)).float().tanh()


class FenceDiscriminator(nn.Module):
    """Images to logits N, float32 under autocast: above 0 for real."""

    def __init__(self, resolution: int, channels: int, width: int) -> None:
        super().__init__()
        maps, layers = maps_of(resolution, width), list[nn.Module]()
        for i, o in pairwise([channels, *maps]):
            norm = [] if o == maps[-1] else [nn.BatchNorm2d(o)]
            layers += [nn.Conv2d(i, o, 5, stride=2, padding=2), *norm, nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(maps[-1] * SMALLEST**2, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)[:, 0].float()


@dataclass(frozen=True)
class FenceNetworks(NetworkSet):
    """Both at the final resolution."""

    generator: FenceGenerator
    discriminator: FenceDiscriminator

    @staticmethod
    def build(resolution: int, channels: int, width: int, latent_size: int, seed: int) -> FenceNetworks:
        """Freshly drawn networks, a function of the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            generator = FenceGenerator(resolution, channels, width, latent_size)
            return FenceNetworks(generator, FenceDiscriminator(resolution, channels, width))
