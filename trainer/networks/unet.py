"""A U-Net as that of pix2pix (Isola et al. 2017), which Skip-GANomaly (Akcay et al. 2019) generates with.

log2(R) levels down to 1x1, with `width` maps at half the side, twice as many at each half of that, eight times at
most. Parameters at width 64: 16,659,075 for 32x32x3, 29,237,889 for 64x64x1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.networks.dcgan import SLOPE, drawn

SPREAD = 0.02
"""Standard deviation of the drawn weights."""


class UNet(nn.Module):
    """Images N x channels x R x R to such images in [-1, 1], float32 under autocast; R a power of two from 8 up."""

    def __init__(self, resolution: int, channels: int, width: int) -> None:
        super().__init__()
        levels = resolution.bit_length() - 1
        maps = [channels, *(width * min(2**level, 8) for level in range(levels))]
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level in range(levels):
            outer, inner = maps[level], maps[level + 1]
            first, last = level == 0, level == levels - 1
            conv = drawn(nn.Conv2d(outer, inner, 4, 2, 1, bias=False), SPREAD)
            around = [] if first else [nn.LeakyReLU(SLOPE)]
            self.downs.append(nn.Sequential(*around, conv, *([] if first or last else [nn.BatchNorm2d(inner)])))
            back = drawn(nn.ConvTranspose2d(inner if last else 2 * inner, outer, 4, 2, 1, bias=first), SPREAD)
            self.ups.append(nn.Sequential(nn.ReLU(), back, *([] if first else [nn.BatchNorm2d(outer)])))

    def forward(self, images: Tensor) -> Tensor:
        skips, x = list[Tensor](), images
        for down in self.downs:
            x = down(x)
            skips.append(x)
        x = skips.pop()
        for up in list(self.ups)[:0:-1]:
            x = torch.cat([skips.pop(), up(x)], dim=1)
        return self.ups[0](x).float().tanh()
