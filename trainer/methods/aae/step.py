"""One step of an adversarial autoencoder: reconstruct, tell codes from the prior, then make them like the prior."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.methods.aae.networks import AdversarialAutoencoder
from trainer.methods.ae.step import squared_errors
from trainer.schedule import Phase
from trainer.training import random
from trainer.training.alternating import AlternatingStep, Batch, Update, adam, adversarial_adam
from trainer.training.losses import frozen


class ReconstructionLoss(nn.Module):
    """The mean over images of weight times mean squared error of a pixel."""

    def __init__(self, networks: AdversarialAutoencoder, bf16: bool) -> None:
        super().__init__()
        self.encoder, self.decoder, self.bf16 = networks.encoder, networks.decoder, bf16

    def forward(self, images: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r; weights: N. Returns the loss and its parts."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            matches = self.decoder(self.encoder(images))
        loss = (weights * squared_errors(images, matches)).mean() / images[0].numel()
        return loss, {"autoencoder/loss": loss.detach()}


class DiscriminatorLoss(nn.Module):
    """Cross entropy of numbers drawn from the prior, which are 1, and of codes, which are 0; the sum of both means."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, codes: Tensor, prior: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """codes, prior: N x code size; weights: of the codes' images, N. Returns the loss and its parts."""
        on_prior, on_codes = self.discriminator(torch.cat([prior, codes]))[:, 0].chunk(2)
        loss = F.softplus(-on_prior).mean() + (weights * F.softplus(on_codes)).mean()
        return loss, {"discriminator/loss": loss.detach()}


class FoolingLoss(nn.Module):
    """Cross entropy of codes with the label 1: the encoder's, against the discriminator."""

    def __init__(self, networks: AdversarialAutoencoder, bf16: bool) -> None:
        super().__init__()
        self.encoder, self.bf16 = networks.encoder, bf16
        self._discriminator = (networks.discriminator,)  # in a tuple: it does not learn here

    def forward(self, images: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r; weights: N. Returns the loss and its parts."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            codes = self.encoder(images).float()
        loss = (weights * F.softplus(-frozen(self._discriminator[0], codes)[:, 0])).mean()
        norm = codes.detach().norm(dim=1).mean()
        return loss, {"encoder/loss": loss.detach(), "encoder/z_hat_norm": norm}


class AaeStep(AlternatingStep):
    """Three updates on one batch."""

    networks: AdversarialAutoencoder

    @property
    def options(self) -> Any:
        return method_of(self.config)

    def updates(self, phase: Phase) -> list[Update]:
        n, options = self.networks, self.options
        plain, against = adam(phase.learning_rate), adversarial_adam(options.adversarial_rate)
        return [
            Update("reconstruction_adam", ReconstructionLoss(n, self.bf16), self._with_weights, plain),
            Update("discriminator_adam", DiscriminatorLoss(n.discriminator), self._codes, against),
            Update("encoder_adam", FoolingLoss(n, self.bf16), self._with_weights, against),
        ]

    def _with_weights(self, batch: Batch) -> tuple[Tensor, ...]:
        return batch.real, self._weights(batch)

    def _codes(self, batch: Batch) -> tuple[Tensor, ...]:
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            codes = self.networks.encoder(batch.real).float()
        return codes, self._latents(random.NOISE, batch.positions), self._weights(batch)

    def _weights(self, batch: Batch) -> Tensor:
        return self.networks.weights_of_images.of_samples[torch.from_numpy(self.data.samples(batch.places))]
