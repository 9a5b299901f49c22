"""Networks that only score, on a CPU: each convolution's weights scaled, summed and laid out once, its ReLU in one go.

A sixth more images a second in large batches, a third more in those of 16 that a service scores, where it is the small
operations that take the time.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from trainer.networks.layers import SLOPE, EqualisedConv
from trainer.private import can_pack, convolved, packed_weight


class PackedConv(nn.Module):
    """Computes what a convolution does, whose weights must not change any more; plainly where gradients are wanted."""

    def __init__(self, plain: EqualisedConv) -> None:
        super().__init__()
        self.plain = plain
        kernel = plain.kernel.detach()
        up = plain.resample == "up"
        self.kernel = kernel if up else packed_weight(kernel, plain.stride, plain.padding)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.plain
        if torch.is_grad_enabled():
            return layer(x)
        if layer.resample == "up":
            return layer.convolved(x, self.kernel)
        slope = SLOPE if layer.leaky else None
        return convolved(x, self.kernel, layer.bias, layer.stride, layer.padding, slope)


def packed(network: nn.Module) -> nn.Module:
    """A network that computes the same and shares its weights; itself where nothing can be packed."""
    layers = {name: each for name, each in network.named_modules() if isinstance(each, EqualisedConv)}
    if not all(can_pack(each.weight) for each in layers.values()) or not layers:
        return network
    result = copy.deepcopy(network, {id(each): each for each in (*network.parameters(), *network.buffers())})
    for name in layers:
        folder, _, last = name.rpartition(".")
        holder = result.get_submodule(folder)
        layer = holder.get_submodule(last)
        assert isinstance(layer, EqualisedConv)
        holder.add_module(last, PackedConv(layer))
    return result
