"""Wide residual networks that classify (Zagoruyko and Komodakis 2016), pre-activated.

A 3x3 convolution to 16 maps; three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times `width` maps, of which the
second and third halve the side; batch norm, ReLU, the mean over places, a dense layer. Parameters at 32x32x3, depth 10:

    width 4, 72 classes   1,214,744
    width 4, 111 classes  1,224,767
    width 1, 72 classes      81,880
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

FIRST = 16
"""Maps of the first convolution."""


class Block(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, beside a shortcut: a 1x1 convolution where sizes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1, self.conv2 = _conv(inputs, outputs, 3, stride), _conv(outputs, outputs, 3, 1)
        alike = inputs == outputs and stride == 1
        self.shortcut = None if alike else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = self.norm1(x).relu()
        around = x if self.shortcut is None else self.shortcut(active)
        return around + self.conv2(self.norm2(self.conv1(active)).relu())


class WideResidual(nn.Module):
    """Images N x channels x r x r, of any side r, to logits N x classes, float32 under autocast."""

    def __init__(self, channels: int, depth: int, width: int, classes: int) -> None:
        """depth: 4 more than a multiple of 6."""
        super().__init__()
        maps = [FIRST, FIRST * width, 2 * FIRST * width, 4 * FIRST * width]
        self.first = _conv(channels, maps[0], 3, 1)
        blocks = []
        for group, (inputs, outputs) in enumerate(pairwise(maps)):
            for place in range((depth - 4) // 6):
                new = place == 0
                blocks.append(Block(inputs if new else outputs, outputs, 2 if new and group else 1))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.dense = nn.BatchNorm2d(maps[-1]), nn.Linear(maps[-1], classes)
        nn.init.xavier_uniform_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def features(self, images: Tensor) -> Tensor:
        """The means over places, N x 64 width."""
        return self.norm(self.blocks(self.first(images))).relu().mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.dense(self.features(images)).float()


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer
