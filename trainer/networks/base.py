"""The networks of a run as one thing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import fields
from typing import Self

import torch
from torch import Tensor, nn


class NetworkSet:
    """The networks of a run: a dataclass whose fields are modules."""

    def by_name(self) -> dict[str, nn.Module]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for network in self.by_name().values() for parameter in network.parameters()]

    def to(self, device: torch.device) -> Self:
        for network in self.by_name().values():
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """As at test time while the block lasts: batch norm takes what it has learned, and learns nothing."""
        training = {name: network.training for name, network in self.by_name().items()}
        for network in self.by_name().values():
            network.eval()
        yield
        for name, network in self.by_name().items():
            network.train(training[name])

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Copies of all weights and buffers on the CPU, by network."""
        return {name: copied(network.state_dict()) for name, network in self.by_name().items()}


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, contiguous, as a safetensors file wants them."""
    return {name: torch.empty(each.shape, dtype=each.dtype).copy_(each.detach()) for name, each in tensors.items()}
