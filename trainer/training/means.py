"""Means over steps and workers, for a line of metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.training.group import Group, all_reduced


class RunningMeans:
    """Means of named scalars since the last read, kept on the device: no host synchronisation a step."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.total: Tensor | None = None
        self.steps = 0

    def add(self, values: dict[str, Tensor]) -> None:
        row = torch.stack(list(values.values()))
        self.names = list(values)
        self.total = row if self.total is None else self.total + row
        self.steps += 1

    def read(self, group: Group) -> dict[str, float]:
        """Means over steps and workers since the last read; every worker of the group must call it."""
        if self.total is None:
            return {}
        mean = all_reduced(group, self.total / self.steps) / group.size
        self.total, self.steps = None, 0
        return dict(zip(self.names, mean.tolist()))
