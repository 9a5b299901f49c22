"""The networks of Deep SVDD (Ruff et al. 2018): LeNet's kind, without any bias, by which they could shrink to a point.

5x5 convolutions to `width` maps at full side, twice as many at each half of it down to 8x8, each followed by batch
norm without scale and offset, leaky ReLU and 2x2 maxima; a dense layer. Parameters at width 32, code size 128:

    32x32x3  520,544, its decoder 284,000
    64x64x1  1,600,288
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

SMALLEST = 4  # the side at which images and codes meet
SLOPE, EPSILON = 0.01, 1e-4


def maps_of(resolution: int, width: int) -> list[int]:
    """Maps at the full side, at half of it, ... down to 8x8."""
    return [width * 2**level for level in range((resolution // SMALLEST).bit_length() - 1)]


class LeNet(nn.Module):
    """Images N x channels x R x R to codes N x code_size, float32 under autocast; R a power of two from 8 up."""

    def __init__(self, resolution: int, channels: int, width: int, code_size: int) -> None:
        super().__init__()
        maps = maps_of(resolution, width)
        layers: list[nn.Module] = []
        for i, o in pairwise([channels, *maps]):
            layers += [_conv(i, o), _norm(o), nn.LeakyReLU(SLOPE), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.dense = nn.Linear(maps[-1] * SMALLEST**2, code_size, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.layers(images)).float()


class LeNetDecoder(nn.Module):
    """Codes N x code_size, a multiple of 16, to images N x channels x R x R of any range, float32 under autocast."""

    def __init__(self, resolution: int, channels: int, width: int, code_size: int) -> None:
        super().__init__()
        first = code_size // SMALLEST**2
        maps = maps_of(resolution, width)[::-1]
        layers: list[nn.Module] = [nn.Unflatten(1, (first, SMALLEST, SMALLEST)), nn.LeakyReLU(SLOPE)]
        for i, o in pairwise([first, *maps]):
            layers += [_conv(i, o), _norm(o), nn.LeakyReLU(SLOPE), nn.Upsample(scale_factor=2, mode="nearest")]
        self.layers = nn.Sequential(*layers, _conv(maps[-1], channels))

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes).float()


def _conv(inputs: int, outputs: int) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, 5, padding=2, bias=False)
    nn.init.xavier_uniform_(layer.weight, gain=nn.init.calculate_gain("leaky_relu", SLOPE))
    return layer


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=EPSILON, affine=False)
