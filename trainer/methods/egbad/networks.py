"""The networks by which EGBAD (Zenati et al. 2018) was shown on MNIST, for images of any side that 4 divides.

Parameters for 28x28x1 at width 32, latent size 200: encoder 1,347,656, generator 6,781,505, discriminator 3,907,329.
Dropout is left out, so that a run's numbers depend on positions alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.methods.alad.networks import BiganNetworks
from trainer.networks.dcgan import drawn
from trainer.training.averages import average_of

SPREAD = 0.02
"""Standard deviation of drawn weights."""
SLOPE = 0.1


def _leaky() -> nn.Module:
    return nn.LeakyReLU(SLOPE)


class DigitEncoder(nn.Sequential):
    """Images N x C x R x R to latent vectors N x latent size, float32 under autocast."""

    def __init__(self, resolution: int, channels: int, width: int, latent_size: int) -> None:
        side = resolution // 4
        super().__init__(
            drawn(nn.Conv2d(channels, width, 3, 1, 1), SPREAD),
            _leaky(),
            drawn(nn.Conv2d(width, 2 * width, 3, 2, 1), SPREAD),
            nn.BatchNorm2d(2 * width),
            _leaky(),
            drawn(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), SPREAD),
            nn.BatchNorm2d(4 * width),
            _leaky(),
            nn.Flatten(),
            drawn(nn.Linear(4 * width * side**2, latent_size), SPREAD),
        )

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).float()


class DigitGenerator(nn.Sequential):
    """Latent vectors N x latent size to images N x C x R x R in [-1, 1], float32 under autocast."""

    def __init__(self, resolution: int, channels: int, width: int, latent_size: int) -> None:
        side = resolution // 4
        super().__init__(
            drawn(nn.Linear(latent_size, 32 * width), SPREAD),
            nn.BatchNorm1d(32 * width),
            nn.ReLU(),
            drawn(nn.Linear(32 * width, 4 * width * side**2), SPREAD),
            nn.BatchNorm1d(4 * width * side**2),
            nn.ReLU(),
            nn.Unflatten(1, (4 * width, side, side)),
            drawn(nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1), SPREAD),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            drawn(nn.ConvTranspose2d(2 * width, channels, 4, 2, 1), SPREAD),
        )

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).float().tanh()


class DigitDiscriminator(nn.Module):
    """An image and a latent vector to features N x 32 width, and to logits N: above 0 for an image and its code."""

    def __init__(self, resolution: int, channels: int, width: int, latent_size: int) -> None:
        super().__init__()
        maps = 2 * width
        self.of_image = nn.Sequential(
            drawn(nn.Conv2d(channels, maps, 4, 2, 1), SPREAD),
            _leaky(),
            drawn(nn.Conv2d(maps, maps, 4, 2, 1), SPREAD),
            nn.BatchNorm2d(maps),
            _leaky(),
            nn.Flatten(),
        )
        self.of_latent = nn.Sequential(drawn(nn.Linear(latent_size, 16 * width), SPREAD), _leaky())
        both = maps * (resolution // 4) ** 2 + 16 * width
        self.joined = nn.Sequential(drawn(nn.Linear(both, 32 * width), SPREAD), _leaky())
        self.head = drawn(nn.Linear(32 * width, 1), SPREAD)

    def forward(self, images: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        features = self.joined(torch.cat([self.of_image(images), self.of_latent(z)], dim=1))
        return features.float(), self.head(features)[:, 0].float()


def of_digits(resolution: int, channels: int, width: int, latent_size: int, seed: int) -> BiganNetworks:
    """Freshly drawn networks, a function of the seed alone."""
    sizes = (resolution, channels, width, latent_size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        three = DigitGenerator(*sizes), DigitEncoder(*sizes), DigitDiscriminator(*sizes)
        return BiganNetworks(*three, *map(average_of, three))
