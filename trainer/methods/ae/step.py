"""One step of an autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.methods.ae.networks import Autoencoder
from trainer.schedule import Phase
from trainer.training.outlier_exposure import ExposedStep, Exposure
from trainer.training.single_loss import SingleLossStep

EPSILON = 1e-7
"""Adam's, of the authors."""
MIN_ERROR = 1e-6
"""Below it 1 / e grows no further."""


def squared_errors(images: Tensor, matches: Tensor) -> Tensor:
    """e = sum over channels and pixels of (x - x_hat)^2, N x C x r x r each to N."""
    return (images - matches).square().flatten(1).sum(dim=1)


class Autoencoding(nn.Module):
    """What losses of autoencoders start from."""

    def __init__(self, networks: Autoencoder, bf16: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder, self.bf16 = networks.encoder, networks.decoder, bf16

    def errors(self, images: Tensor) -> Tensor:
        """e of N x C x r x r, N."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            matches = self.decoder(self.encoder(images))
        return squared_errors(images, matches)


class AutoencoderLoss(Autoencoding):
    """The mean of e over images; as an anomalous one an image has the loss 1 / e."""

    def __init__(self, networks: Autoencoder, exposure: Exposure, bf16: bool = False) -> None:
        super().__init__(networks, bf16)
        self.exposure = exposure

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r. Returns the loss and its parts."""
        errors = self.errors(images)
        loss, parts = self.exposure.joined(errors, 1 / errors.clamp_min(MIN_ERROR))
        return loss, spread_of(errors) | parts


def spread_of(errors: Tensor) -> dict[str, Tensor]:
    """The errors' mean and tail for the log: a run that is too long learns the outliers, and the tail falls."""
    errors = errors.detach()
    median, tail = errors.quantile(0.5), errors.quantile(0.95)
    return {"autoencoder/loss": errors.mean(), "autoencoder/median": median, "autoencoder/95th_percentile": tail}


class AutoencodingStep(SingleLossStep):
    """One update of encoder and decoder."""

    def optimiser(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        options: Any = method_of(self.config)
        return torch.optim.Adam(parameters, eps=EPSILON, weight_decay=options.weight_decay, fused=True)


class AutoencoderStep(AutoencodingStep, ExposedStep):
    """That of the plain autoencoder."""

    networks: Autoencoder

    def objective(self, phase: Phase) -> nn.Module:
        return AutoencoderLoss(self.networks, self.exposure, self.bf16)
