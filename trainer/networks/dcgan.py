"""Encoder and decoder in the manner of DCGAN (Radford et al. 2016): 4x4 convolutions of stride 2 between R and 4x4.

The encoder has `width` maps at half the side and twice as many at each half of that, batch norm but after the first,
leaky ReLU; its last convolution makes a code of the 4x4. The decoder mirrors it, with ReLU, to tanh. No biases unless
asked. Parameters of GANomaly's (Akcay et al. 2018) at width 64, code size 100:

             encoder    decoder    to one number
    32x32x3  1,068,800  1,068,928  663,296
    64x64x1  3,574,528  3,574,656  2,763,520
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn

SMALLEST = 4  # the side at which images and codes meet
SLOPE = 0.2
Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
Wrap = Callable[[nn.Module], nn.Module]


def maps_of(resolution: int, width: int) -> list[int]:
    """Maps at half the side, a quarter, ... down to 4x4."""
    return [width * 2**level for level in range((resolution // SMALLEST).bit_length() - 1)]


def as_it_is(layer: nn.Module) -> nn.Module:
    return layer


class DcganEncoder(nn.Module):
    """Images N x channels x R x R to codes N x outputs, float32 under autocast; R a power of two from 8 up.

    spread: standard deviation of the drawn weights. wrap: what is done to each convolution but the last, as spectral
    norm. norm_first: batch norm after the first too.
    """

    def __init__(
        self,
        resolution: int,
        channels: int,
        width: int,
        outputs: int,
        bias: bool = False,
        spread: float = 0.02,
        wrap: Wrap = as_it_is,
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level, (i, o) in enumerate(pairwise([channels, *maps_of(resolution, width)])):
            norm = [nn.BatchNorm2d(o)] if level or norm_first else []
            layers += [wrap(drawn(nn.Conv2d(i, o, 4, 2, 1, bias=bias), spread)), *norm, nn.LeakyReLU(SLOPE)]
        self.trunk = nn.Sequential(*layers)
        self.head = drawn(nn.Conv2d(maps_of(resolution, width)[-1], outputs, SMALLEST, bias=bias), spread)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images)).flatten(1).float()


class Discriminator(DcganEncoder):
    """Images to features, the maps at 4x4, flattened, N x F; and to logits N: above 0 for real."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        maps = self.trunk(images)
        return maps.flatten(1).float(), self.head(maps).flatten().float()


class DcganDecoder(nn.Module):
    """Codes N x code_size to images N x channels x R x R in [-1, 1], float32 under autocast."""

    def __init__(
        self, resolution: int, channels: int, width: int, code_size: int, bias: bool = False, spread: float = 0.02
    ) -> None:
        super().__init__()
        maps = maps_of(resolution, width)[::-1]
        layers: list[nn.Module] = [drawn(nn.ConvTranspose2d(code_size, maps[0], SMALLEST, bias=bias), spread)]
        for i, o in pairwise([*maps, channels]):
            layers += [nn.BatchNorm2d(i), nn.ReLU()]
            layers += [drawn(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=bias), spread)]
        self.layers = nn.Sequential(*layers)

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes[:, :, None, None]).float().tanh()


def drawn(layer: Layer, spread: float) -> Layer:
    """Draw the weights N(0, spread^2); biases 0."""
    nn.init.normal_(layer.weight, 0.0, spread)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
