"""One step of GANomaly: encoder, decoder and encoder again first, then the discriminator (Akcay et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.methods.ganomaly.networks import GanomalyNetworks
from trainer.networks.dcgan import Discriminator
from trainer.schedule import Phase
from trainer.training.alternating import AlternatingStep, Batch, Update, adversarial_adam
from trainer.training.losses import frozen


class GanomalyLoss(nn.Module):
    """Differences of the discriminator's features, of pixels and of codes, each by its weight."""

    def __init__(self, networks: GanomalyNetworks, options: Any, bf16: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder, self.encoder_again = networks.encoder, networks.decoder, networks.encoder_again
        self._discriminator = (networks.discriminator,)  # in a tuple: it does not learn here
        self.options, self.bf16 = options, bf16

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r. Returns the loss and its parts."""
        (discriminator,) = self._discriminator
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            codes = self.encoder(images)
            matches = self.decoder(codes)
            again = self.encoder_again(matches)
            with torch.no_grad():
                wanted, _ = frozen(discriminator, images)
            matched, _ = frozen(discriminator, matches)
        features, pixels, both = F.mse_loss(matched, wanted), F.l1_loss(matches, images), F.mse_loss(again, codes)
        o = self.options
        loss = o.feature_weight * features + o.pixel_weight * pixels + o.code_weight * both
        parts = {"generator/loss": loss, "generator/pixels": pixels, "generator/codes": both}
        return loss, {name: part.detach() for name, part in parts.items()}


class DiscriminatorLoss(nn.Module):
    """Half of the cross entropies of real images, which are 1, and of reconstructed ones, which are 0."""

    def __init__(self, discriminator: Discriminator, bf16: bool = False) -> None:
        super().__init__()
        self.discriminator, self.bf16 = discriminator, bf16

    def forward(self, images: Tensor, matches: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images, matches: N x C x r x r. Returns the loss and its parts."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            (_, real), (_, fake) = self.discriminator(images), self.discriminator(matches)
        loss = 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
        return loss, {"discriminator/loss": loss.detach()}


class GanomalyStep(AlternatingStep):
    """Two updates on one batch."""

    networks: GanomalyNetworks

    def updates(self, phase: Phase) -> list[Update]:
        n, options = self.networks, method_of(self.config)

        adam = adversarial_adam(phase.learning_rate)
        telling = DiscriminatorLoss(n.discriminator, self.bf16)
        return [
            Update("generator_adam", GanomalyLoss(n, options, self.bf16), lambda batch: (batch.real,), adam),
            Update("discriminator_adam", telling, self._with_matches, adam),
        ]

    def _with_matches(self, batch: Batch) -> tuple[Tensor, ...]:
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return batch.real, self.networks.decoder(self.networks.encoder(batch.real))
