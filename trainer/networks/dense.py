"""Networks of dense layers."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class Dense(nn.Sequential):
    """N x sizes[0] (or anything of as many numbers) to N x sizes[-1]: ReLU, and batch norm if asked, between layers."""

    def __init__(self, *sizes: int, norm: bool = False) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for i, o in pairwise(sizes[:-1]):
            layers += [nn.Linear(i, o), *([nn.BatchNorm1d(o)] if norm else []), nn.ReLU()]
        super().__init__(*layers, nn.Linear(sizes[-2], sizes[-1]))

    def forward(self, input: Tensor) -> Tensor:
        """Float32 under autocast."""
        return super().forward(input).float()
