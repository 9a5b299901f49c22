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
from trainer.training.losses import frozen
from trainer.training.step import Step

BETAS = (0.5, 0.999)
"""Adam's, of discriminator and encoder against each other."""


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


class AaeStep(Step):
    """Three updates on one batch."""

    networks: AdversarialAutoencoder

    def begin(self, phase: Phase) -> None:
        n, options = self.networks, self.options
        self.phase = phase
        self.share_buffers()
        for network in n.by_name().values():
            network.requires_grad_(True).train()
        self.trained = n.parameters()
        self.reconstruction = self._reduced(ReconstructionLoss(n, self.bf16))
        self.telling, self.fooling = (
            self._reduced(DiscriminatorLoss(n.discriminator)),
            self._reduced(FoolingLoss(n, self.bf16)),
        )
        both = [*n.encoder.parameters(), *n.decoder.parameters()]
        against = options.adversarial_rate
        self.optimisers = {
            "reconstruction_adam": torch.optim.Adam(both, lr=phase.learning_rate, fused=True),
            "discriminator_adam": torch.optim.Adam(n.discriminator.parameters(), lr=against, betas=BETAS, fused=True),
            "encoder_adam": torch.optim.Adam(n.encoder.parameters(), lr=against, betas=BETAS, fused=True),
        }
        if self.group.size > 1:
            self._settle_reduction()

    @property
    def options(self) -> Any:
        return method_of(self.config)

    def weights_at(self, places: Any) -> Tensor:
        """Of the images at these positions, N."""
        return self.networks.weights_of_images.of_samples[torch.from_numpy(self.data.samples(places))]

    def run(self, images_seen: int) -> dict[str, Tensor]:
        places, positions = self._places(images_seen)
        images, weights = self._real(places, positions), self.weights_at(places)
        loss, parts = self.reconstruction(images, weights)
        self._update(self.optimisers["reconstruction_adam"], loss)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            codes = self.networks.encoder(images).float()
        loss, telling = self.telling(codes, self._latents(random.NOISE, positions), weights)
        self._update(self.optimisers["discriminator_adam"], loss)
        loss, fooling = self.fooling(images, weights)
        self._update(self.optimisers["encoder_adam"], loss)
        self.finite.look(self.trained, images_seen)
        return parts | telling | fooling

    def _settle_reduction(self) -> None:
        """A pass that leaves nothing behind: after its first one DDP lays its buckets out anew; see `GrowingStep`."""
        with self._unchanged():
            places, positions = self._places(self.phase.start)
            images, weights = self._real(places, positions), self.weights_at(places)
            codes = torch.zeros(len(images), self.latent_size, device=self.device)
            for loss, inputs in (
                (self.reconstruction, (images, weights)),
                (self.telling, (codes, codes, weights)),
                (self.fooling, (images, weights)),
            ):
                loss(*inputs)[0].backward()
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
