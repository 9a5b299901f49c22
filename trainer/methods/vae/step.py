"""One step of a variational autoencoder: Kingma and Welling's bound (2014), as An and Cho (2015) maximise it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainer.methods.ae.step import AutoencodingStep
from trainer.methods.vae.networks import Normal, VariationalAutoencoder
from trainer.schedule import Phase
from trainer.training import random


def negative_log_likelihood(images: Tensor, normal: Normal) -> Tensor:
    """-log N(x; mean, variance), the sum over all pixels: N x C x r x r each to N."""
    mean, log_variance = normal
    each = 0.5 * (math.log(2 * math.pi) + log_variance + (images - mean).square() * (-log_variance).exp())
    return each.flatten(1).sum(dim=1)


def divergence(normal: Normal) -> Tensor:
    """KL(N(mean, variance) || N(0, I)) = 1/2 sum (mean^2 + s^2 - 1 - ln s^2): N x latent size each to N."""
    mean, log_variance = normal
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


def drawn(normal: Normal, noise: Tensor) -> Tensor:
    """mean + s * noise."""
    mean, log_variance = normal
    return mean + (0.5 * log_variance).exp() * noise


class VaeLoss(nn.Module):
    """The mean of -log p(x | z) + KL over images, z drawn once of each: what the negative bound is in expectation."""

    def __init__(self, networks: VariationalAutoencoder, bf16: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder, self.bf16 = networks.encoder, networks.decoder, bf16

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r; noise: N x latent size, standard normal. Returns the loss and its parts."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            latent = self.encoder(images)
            normal = self.decoder(drawn(latent, noise))
        unlikely, apart = negative_log_likelihood(images, normal).mean(), divergence(latent).mean()
        loss = unlikely + apart
        parts = {"vae/loss": loss, "vae/nll": unlikely, "vae/kl": apart, "vae/log_variance": normal[1].mean()}
        return loss, {name: part.detach() for name, part in parts.items()}


class VaeStep(AutoencodingStep):
    """One update of encoder and decoder."""

    networks: VariationalAutoencoder

    def objective(self, phase: Phase) -> nn.Module:
        self.latent_size = self.networks.decoder.dense.in_features
        return VaeLoss(self.networks, self.bf16)

    def inputs(self, images_seen: int) -> tuple[Tensor, ...]:
        places, positions = self._places(images_seen)
        return self._real(places, positions), self._latents(random.NOISE, positions)
