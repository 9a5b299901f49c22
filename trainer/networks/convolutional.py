"""Encoder and decoder of plain strided convolutions, for autoencoders of all kinds.

The network that Golan and El-Yaniv (2018) and E3Outlier (Wang et al. 2019) take as their baseline: 3x3 convolutions of
stride 2, `width` maps at half the side and twice as many at each half of that, down to 4x4; batch norm, ReLU; a dense
layer. The decoder mirrors it. Parameters of encoder and decoder at width 64, code size 256:

    32x32x3  1,420,544 and 1,431,811
    64x64x1  3,649,152 and 3,671,937
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

SMALLEST = 4  # the side at which images and vectors meet


def maps_of(resolution: int, width: int) -> list[int]:
    """Maps at half the side, a quarter, ... down to 4x4."""
    return [width * 2**level for level in range((resolution // SMALLEST).bit_length() - 1)]


class ConvEncoder(nn.Module):
    """Images N x channels x R x R to N x `outputs`; R a power of two from 8 up."""

    def __init__(self, resolution: int, channels: int, width: int, outputs: int) -> None:
        super().__init__()
        maps = maps_of(resolution, width)
        blocks = [
            layer
            for i, o in pairwise([channels, *maps])
            for layer in (nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o), nn.ReLU())
        ]
        self.trunk = nn.Sequential(*blocks, nn.Flatten())
        self.dense = nn.Linear(maps[-1] * SMALLEST**2, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.trunk(images))


class ConvDecoder(nn.Module):
    """Codes N x `code_size` to maps N x outputs x R x R, of any range."""

    def __init__(self, resolution: int, outputs: int, width: int, code_size: int) -> None:
        super().__init__()
        maps = maps_of(resolution, width)[::-1]
        self.dense = nn.Linear(code_size, maps[0] * SMALLEST**2)
        blocks: list[nn.Module] = [nn.BatchNorm1d(maps[0] * SMALLEST**2), nn.ReLU()]
        blocks += [nn.Unflatten(1, (maps[0], SMALLEST, SMALLEST))]
        for i, o in pairwise(maps):
            blocks += [_doubling(i, o), nn.BatchNorm2d(o), nn.ReLU()]
        self.blocks = nn.Sequential(*blocks, _doubling(maps[-1], outputs))

    def forward(self, codes: Tensor) -> Tensor:
        return self.blocks(self.dense(codes))


def _doubling(inputs: int, outputs: int) -> nn.Module:
    """A 3x3 transposed convolution, N x inputs x r x r to N x outputs x 2r x 2r."""
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
