"""One step of an autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.methods.ae.networks import Autoencoder
from trainer.schedule import Phase
from trainer.training.single_loss import SingleLossStep

EPSILON = 1e-7
"""Adam's, of the authors."""


def squared_errors(images: Tensor, matches: Tensor) -> Tensor:
    """e = sum over channels and pixels of (x - x_hat)^2, N x C x r x r each to N."""
    return (images - matches).square().flatten(1).sum(dim=1)


class AutoencoderLoss(nn.Module):
    """The mean of e over images."""

    def __init__(self, networks: Autoencoder, bf16: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder, self.bf16 = networks.encoder, networks.decoder, bf16

    def errors(self, images: Tensor) -> Tensor:
        """e of N x C x r x r, N."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            matches = self.decoder(self.encoder(images))
        return squared_errors(images, matches)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r. Returns the loss and its parts."""
        errors = self.errors(images)
        return errors.mean(), spread_of(errors)


def spread_of(errors: Tensor) -> dict[str, Tensor]:
    """The errors' mean and tail for the log: a training that is too long learns the outliers, and the tail falls."""
    errors = errors.detach()
    median, tail = errors.quantile(0.5), errors.quantile(0.95)
    return {"autoencoder/loss": errors.mean(), "autoencoder/median": median, "autoencoder/95th_percentile": tail}


class AutoencoderStep(SingleLossStep):
    """One update of encoder and decoder."""

    networks: Autoencoder

    def objective(self, phase: Phase) -> nn.Module:
        return AutoencoderLoss(self.networks, self.bf16)

    def optimiser(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        options: Any = method_of(self.config)
        decay = options.weight_decay
        return torch.optim.Adam(parameters, eps=EPSILON, weight_decay=decay, fused=True)
