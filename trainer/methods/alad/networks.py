"""The networks of ALAD (Zenati et al. 2018), and of EGBAD, which has the first three.

Parameters for 32x32x3 at width 128, latent size 100: encoder 3,449,572, generator 3,449,475, and of the discriminators
of image and latent vector 11,859,329, of two images 226,177, of two latent vectors 14,977. Dropout is left out, so that
a run's numbers depend on positions alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trainer.networks.base import NetworkSet
from trainer.networks.dcgan import SLOPE, SMALLEST, DcganDecoder, DcganEncoder, Wrap, as_it_is, drawn, maps_of
from trainer.training.averages import average_of

SPREAD = 0.01
"""Standard deviation of drawn weights."""


def _dense(inputs: int, outputs: int) -> nn.Linear:
    return drawn(nn.Linear(inputs, outputs), SPREAD)


class JointDiscriminator(nn.Module):
    """An image and a latent vector to features N x 8 width, and to logits N: above 0 for an image and its code."""

    def __init__(self, resolution: int, channels: int, width: int, latent_size: int, wrap: Wrap = as_it_is) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, (i, o) in enumerate(pairwise([channels, *maps_of(resolution, width)])):
            conv = wrap(drawn(nn.Conv2d(i, o, 4, 2, 1), SPREAD))
            layers += [conv, *([nn.BatchNorm2d(o)] if level else []), nn.LeakyReLU(SLOPE)]
        self.of_image = nn.Sequential(*layers, nn.Flatten())
        size, inner = maps_of(resolution, width)[-1] * SMALLEST**2, 4 * width
        first, second = wrap(_dense(latent_size, inner)), wrap(_dense(inner, inner))
        self.of_latent = nn.Sequential(first, nn.LeakyReLU(SLOPE), second, nn.LeakyReLU(SLOPE))
        self.joined = nn.Sequential(wrap(_dense(size + inner, 8 * width)), nn.LeakyReLU(SLOPE))
        self.head = _dense(8 * width, 1)

    def forward(self, images: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        features = self.joined(torch.cat([self.of_image(images), self.of_latent(z)], dim=1))
        return features.float(), self.head(features)[:, 0].float()


class PairDiscriminator(nn.Module):
    """Two images, one below the other, to features N x F and logits N: above 0 for an image and itself."""

    def __init__(self, resolution: int, channels: int, width: int, wrap: Wrap = as_it_is) -> None:
        super().__init__()
        maps, layers = [channels, width // 2, width], list[nn.Module]()
        for i, o in pairwise(maps):
            layers += [wrap(drawn(nn.Conv2d(i, o, 5, 2, 2), SPREAD)), nn.LeakyReLU(SLOPE)]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.head = _dense(width * (resolution // 4) * (resolution // 2), 1)

    def forward(self, images: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(torch.cat([images, others], dim=2))
        return features.float(), self.head(features)[:, 0].float()


class LatentDiscriminator(nn.Module):
    """Two latent vectors to logits N: above 0 for a vector and itself."""

    def __init__(self, latent_size: int, wrap: Wrap = as_it_is) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in pairwise([2 * latent_size, 64, 32]):
            layers += [wrap(_dense(i, o)), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, _dense(32, 1))

    def forward(self, z: Tensor, others: Tensor) -> Tensor:
        return self.layers(torch.cat([z, others], dim=1))[:, 0].float()


@dataclass(frozen=True)
class BiganNetworks(NetworkSet):
    """Generator, encoder and the discriminator of both, and the averages of the three that score."""

    generator: nn.Module
    encoder: nn.Module
    discriminator: nn.Module
    average_generator: nn.Module
    average_encoder: nn.Module
    average_discriminator: nn.Module

    @staticmethod
    def build(resolution: int, channels: int, width: int, latent_size: int, seed: int) -> BiganNetworks:
        """Freshly drawn networks, a function of the seed alone."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            three = _three(resolution, channels, width, latent_size, as_it_is)
            return BiganNetworks(*three, *map(average_of, three))


@dataclass(frozen=True)
class AladNetworks(NetworkSet):
    """Generator, encoder and three discriminators, and the averages of the three networks that score."""

    generator: DcganDecoder
    encoder: DcganEncoder
    discriminator: JointDiscriminator
    of_images: PairDiscriminator
    of_latents: LatentDiscriminator
    average_generator: nn.Module
    average_encoder: nn.Module
    average_of_images: nn.Module

    @staticmethod
    def build(resolution: int, channels: int, width: int, latent_size: int, seed: int) -> AladNetworks:
        """Freshly drawn networks, a function of the seed alone; spectral norm but in the generator and last layers."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            generator, encoder, joint = _three(resolution, channels, width, latent_size, spectral_norm)
            pair = PairDiscriminator(resolution, channels, width, spectral_norm)
            latents = LatentDiscriminator(latent_size, spectral_norm)
            averages = [average_of(each) for each in (generator, encoder, pair)]
            return AladNetworks(generator, encoder, joint, pair, latents, *averages)


def _three(
    resolution: int, channels: int, width: int, latent_size: int, wrap: Wrap
) -> tuple[DcganDecoder, DcganEncoder, JointDiscriminator]:
    sizes = (resolution, channels, width, latent_size)
    encoder = DcganEncoder(*sizes, bias=True, spread=SPREAD, wrap=wrap, norm_first=True)
    return DcganDecoder(*sizes, bias=True, spread=SPREAD), encoder, JointDiscriminator(*sizes, wrap)
