"""Moving averages of whole networks, which some methods score with."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from trainer.private import lerp_all


def average_of(network: nn.Module) -> nn.Module:
    """A copy to start from, which does not learn by gradients."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay average + (1 - decay) network; what batch norm has learned is taken as it is."""
    lerp_all(tuple(average.parameters()), tuple(p.detach() for p in network.parameters()), 1 - decay)
    buffers: dict[str, Tensor] = dict(network.named_buffers())
    for name, buffer in average.named_buffers():
        buffer.copy_(buffers[name])
