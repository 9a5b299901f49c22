"""The networks and the loss of f-AnoGAN (Schlegl et al. 2019).

Residual networks as in WGAN-GP (Gulrajani et al. 2017), for images whose side is a power of two from 8 up. At side r
of a network for side R there are min(8, R / r) * width channels. Parameters at width 64, latent size 128:

             generator    critic       encoder
    64x64x1  8,539,329    7,490,689    8,531,200
    32x32x3  3,556,675    2,508,033    3,548,544
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from trainer.networks.layers import at_least_float32

SMALLEST = 4  # the side at which images and vectors meet

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def he(layer: Layer) -> Layer:
    """Draw the weights N(0, 2 / fan in), for layers that follow a ReLU; bias 0 (He et al. 2015)."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def xavier(layer: Layer) -> Layer:
    """Draw the weights uniformly with variance 2 / (fan in + fan out); bias 0 (Glorot and Bengio 2010)."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def channels_by_side(resolution: int, width: int) -> list[int]:
    """Channels at sides 4, 8, ... up to `resolution`."""
    sides = [2**power for power in range(SMALLEST.bit_length() - 1, resolution.bit_length())]
    return [min(8, resolution // side) * width for side in sides]


def layer_norm(channels: int) -> nn.Module:
    """Normalise each sample over C, H, W, with one scale and one offset a channel."""
    return nn.GroupNorm(1, channels)


class ResidualBlock(nn.Module):
    """The sum of two ways from input to output."""

    def __init__(self, residual: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.residual, self.shortcut = residual, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


# In both blocks the first convolution has no bias, since a norm follows it, and the shortcut's 1x1 convolution is
# done at the smaller side: it commutes with the resampling.


def up_block(inputs: int, outputs: int) -> ResidualBlock:
    """N x inputs x r x r to N x outputs x 2r x 2r; nearest x2, then the first convolution."""
    residual = nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="nearest"),
        he(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        he(nn.Conv2d(outputs, outputs, 3, padding=1)),
    )
    shortcut = nn.Sequential(xavier(nn.Conv2d(inputs, outputs, 1)), nn.Upsample(scale_factor=2, mode="nearest"))
    return ResidualBlock(residual, shortcut)


def down_block(inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> ResidualBlock:
    """N x inputs x 2r x 2r to N x outputs x r x r; the second convolution, then means over 2 x 2."""
    residual = nn.Sequential(
        norm(inputs),
        nn.ReLU(),
        he(nn.Conv2d(inputs, inputs, 3, padding=1, bias=False)),
        norm(inputs),
        nn.ReLU(),
        he(nn.Conv2d(inputs, outputs, 3, padding=1)),
        nn.AvgPool2d(2),
    )
    shortcut = nn.Sequential(nn.AvgPool2d(2), xavier(nn.Conv2d(inputs, outputs, 1)))
    return ResidualBlock(residual, shortcut)


def trunk(resolution: int, channels: int, width: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """What critic and encoder share: images to the last block's maps at 4 x 4, flattened."""
    maps = channels_by_side(resolution, width)[::-1]
    first = xavier(nn.Conv2d(channels, maps[0], 3, padding=1))
    return nn.Sequential(first, *(down_block(i, o, norm) for i, o in pairwise(maps)), nn.Flatten())


def feature_size(resolution: int, width: int) -> int:
    """Length of the trunk's output."""
    return channels_by_side(resolution, width)[0] * SMALLEST**2


class Generator(nn.Module):
    """z (N x latent size) to images (N x channels x R x R) in [-1, 1], float32 under autocast.

    Batch norm: an image depends on its own z alone in eval mode only.
    """

    def __init__(self, resolution: int, channels: int, width: int, latent_size: int) -> None:
        super().__init__()
        maps = channels_by_side(resolution, width)
        self.body = nn.Sequential(
            xavier(nn.Linear(latent_size, feature_size(resolution, width))),
            nn.Unflatten(1, (maps[0], SMALLEST, SMALLEST)),
            *(up_block(i, o) for i, o in pairwise(maps)),
            nn.BatchNorm2d(maps[-1]),
            nn.ReLU(),
            xavier(nn.Conv2d(maps[-1], channels, 3, padding=1)),
        )

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(at_least_float32(self.body(z)))


class Critic(nn.Module):
    """Images (N x channels x R x R) to scores (N), float32 under autocast.

    Layer norm: the gradient penalty is one a sample, so a sample's score must be its own (Gulrajani et al. 2017).
    """

    def __init__(self, resolution: int, channels: int, width: int) -> None:
        super().__init__()
        self.trunk = trunk(resolution, channels, width, layer_norm)
        self.score = xavier(nn.Linear(feature_size(resolution, width), 1))

    def features(self, images: Tensor) -> Tensor:
        """f, what the score is a linear function of: N x F with F = 16 * channels at 4 x 4; float32 under autocast."""
        return at_least_float32(self.trunk(images))

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.score(features).squeeze(1)


class Encoder(nn.Module):
    """Images (N x channels x R x R) to z_hat (N x latent size) in [-1, 1], float32 under autocast.

    The critic with batch norm in place of layer norm, and a longer output.
    """

    def __init__(self, resolution: int, channels: int, width: int, latent_size: int) -> None:
        super().__init__()
        self.trunk = trunk(resolution, channels, width, nn.BatchNorm2d)
        self.dense = xavier(nn.Linear(feature_size(resolution, width), latent_size))

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(at_least_float32(self.dense(self.trunk(images))))
