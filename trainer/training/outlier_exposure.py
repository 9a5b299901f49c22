"""Latent outlier exposure (LOE, Qiu et al. 2022): a loss that takes part of each batch for anomalous.

It needs two losses of an image: as a normal one and as an anomalous one. Which images count as anomalous follows from
the losses themselves, in each batch for itself; how many is an assumption, alpha, that no label goes into.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.methods import method_of
from trainer.schedule import Phase
from trainer.training.group import Group, gathered
from trainer.training.single_loss import SingleLossStep

PASSES_BLIND = 2
"""Over the training images, or half a phase where that is shorter, before any image is taken for anomalous."""


def exposed(normal: Tensor, anomalous: Tensor, how: str, alpha: float, group: Group) -> tuple[Tensor, Tensor]:
    """This worker's share of the loss of the global batch of B, and which of its images count as anomalous (bool N).

    normal, anomalous: each image's loss as the one and the other, N. Of B images the floor(alpha B) with the greatest
    normal - anomalous count as anomalous (refine: with the greatest normal loss). hard: these have their anomalous
    loss; soft: the mean of both; refine: none, they are left out of the mean. blind, or alpha 0: all are normal.
    """
    total = len(normal) * group.size
    taken = 0 if how == "blind" else int(alpha * total)
    if not taken:
        return normal.mean(), torch.zeros_like(normal, dtype=torch.bool)
    chosen = _greatest((normal if how == "refine" else normal - anomalous).detach(), taken, group)
    if how == "refine":
        loss = torch.where(chosen, 0.0, normal).sum() * (group.size / (total - taken))
    else:
        other = anomalous if how == "hard" else 0.5 * (normal + anomalous)
        loss = torch.where(chosen, other, normal).mean()
    return loss, chosen


def _greatest(values: Tensor, count: int, group: Group) -> Tensor:
    """Which of this worker's values are among the `count` greatest of all workers; of equal ones the first."""
    whole = gathered(group, values)
    first = whole.argsort(descending=True, stable=True)[:count]
    chosen = torch.zeros(len(whole), dtype=torch.bool, device=values.device).index_fill(0, first, True)
    return chosen[group.rank * len(values) :][: len(values)]


class Exposure:
    """How a method's loss treats outliers, which for the first passes over the data is not at all."""

    def __init__(self, how: str, alpha: float, group: Group) -> None:
        self.how, self.alpha, self.group, self.is_on = how, alpha, group, False

    def joined(self, normal: Tensor, anomalous: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of N images by their losses as normal and as anomalous ones, and for the log who were taken."""
        loss, chosen = exposed(normal, anomalous, self.how if self.is_on else "blind", self.alpha, self.group)
        if self.how == "blind":
            return loss, {}
        return loss, {"outliers/share": chosen.float().mean()}


class ExposedStep(SingleLossStep):
    """The step of a method with the options `outliers` and `alpha`, whose objective asks `exposure`."""

    exposure: Exposure

    def begin(self, phase: Phase) -> None:
        options: Any = method_of(self.config)
        self.exposure = Exposure(options.outliers, options.alpha, self.group)
        super().begin(phase)

    def run(self, images_seen: int) -> dict[str, Tensor]:
        phase = self.phase
        blind = min(PASSES_BLIND * len(self.data), (phase.end - phase.start) // 2)
        self.exposure.is_on = images_seen - phase.start >= blind
        return super().run(images_seen)
