"""One step of DRAE: an autoencoder whose loss is a function of all errors of the global batch (Xia et al. 2015)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.methods.ae.networks import Autoencoder
from trainer.methods.ae.step import Autoencoding, AutoencodingStep, spread_of
from trainer.schedule import Phase
from trainer.training.group import Group, gathered


def split(errors: Tensor) -> tuple[Tensor, Tensor]:
    """Otsu's split of errors, N: how many of the smallest lie below (0-dimensional, 1 to N - 1), and its h.

    h = (scatter of the low side + scatter of the high side) / total scatter, a scatter being a sum of squares about
    the mean. It is least among all splits, and does not change with shift and scale. All errors alike give h 0.
    """
    ordered = errors.detach().sort().values
    n = len(ordered)
    below = torch.arange(1, n, device=errors.device)
    centred = ordered - ordered.mean()
    sums = centred.cumsum(0)[:-1]
    # what the two sides' scatters lack of the total: the scatter of their means
    between = sums.square() * n / (below * (n - below))
    total = centred.square().sum()
    best = between.argmax()
    return below[best], torch.where(total > 0, 1 - between[best] / total.clamp_min(1e-30), 0.0)


def drae_loss(errors: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """mean of e over the low side + weight * h, and the share of the high side; errors: of the whole batch, N.

    h is differentiable in the errors while the split stays where it is.
    """
    ordered = errors.sort().values
    low, _ = split(errors)
    n = len(ordered)
    is_low = torch.arange(n, device=errors.device) < low
    total = _scatter(ordered, torch.ones_like(is_low))
    within = _scatter(ordered, is_low) + _scatter(ordered, ~is_low)
    h = within / total.clamp_min(1e-30)
    return torch.where(is_low, ordered, 0.0).sum() / low + weight * h, 1 - low / n


def _scatter(values: Tensor, chosen: Tensor) -> Tensor:
    """Sum of squares of the chosen values about their mean."""
    mean = torch.where(chosen, values, 0.0).sum() / chosen.sum()
    return torch.where(chosen, values - mean, 0.0).square().sum()


class DraeLoss(Autoencoding):
    """The loss of a global batch of which this worker has a part."""

    def __init__(self, networks: Autoencoder, weight: float, group: Group, bf16: bool = False) -> None:
        super().__init__(networks, bf16)
        self.weight, self.group = weight, group

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r. Returns this worker's share of the loss, and its parts."""
        own = self.errors(images)
        loss, rejected = drae_loss(gathered(self.group, own), self.weight)
        parts = {"drae/loss": loss.detach(), "drae/rejected": rejected.detach()}
        return loss * self.group.size, spread_of(own) | parts


class DraeStep(AutoencodingStep):
    """One update of encoder and decoder."""

    networks: Autoencoder

    def objective(self, phase: Phase) -> nn.Module:
        options: Any = method_of(self.config)
        return DraeLoss(self.networks, options.split_weight, self.group, self.bf16)
