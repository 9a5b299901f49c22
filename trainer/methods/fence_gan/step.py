"""One step of Fence GAN: the discriminator on real, then on generated images, then the generator (Ngo et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.methods.fence_gan.networks import FenceDiscriminator, FenceNetworks
from trainer.schedule import Phase
from trainer.training import random
from trainer.training.alternating import AlternatingStep, Batch, Update, adversarial_adam
from trainer.training.group import Group, gathered
from trainer.training.losses import frozen


def encirclement_loss(logits: Tensor, level: float) -> Tensor:
    """The mean cross entropy of D with the label `level`; at least -level ln level - (1 - level) ln (1 - level)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, level))


def dispersion_of(images: Tensor) -> Tensor:
    """The mean distance of images from their mean; shifts of all do not change it, twice the contrast doubles it."""
    flat = images.flatten(1)
    return (flat - flat.mean(dim=0)).norm(dim=1).mean()


class LabelLoss(nn.Module):
    """Cross entropy of the discriminator with one label, by a weight."""

    def __init__(self, discriminator: FenceDiscriminator, label: float, weight: float, bf16: bool = False) -> None:
        super().__init__()
        self.discriminator, self.label, self.weight, self.bf16 = discriminator, label, weight, bf16

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r. Returns the loss and its parts."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.discriminator(images)
        loss = self.weight * encirclement_loss(logits, self.label)
        return loss, {f"discriminator/loss_{'real' if self.label else 'fake'}": loss.detach()}


class FenceLoss(nn.Module):
    """Generated images lie where the discriminator says `level`, and apart; of the global batch."""

    def __init__(self, networks: FenceNetworks, level: float, dispersion: float, group: Group, bf16: bool) -> None:
        super().__init__()
        self.generator, self._discriminator = networks.generator, (networks.discriminator,)  # which does not learn here
        self.level, self.dispersion, self.group, self.bf16 = level, dispersion, group, bf16

    def forward(self, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """z: N x latent size. Returns this worker's share of the loss, and its parts."""
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.bf16):
            fake = self.generator(z)
            logits = frozen(self._discriminator[0], fake)
        around = encirclement_loss(logits, self.level)
        apart = dispersion_of(gathered(self.group, fake.flatten(1)))
        loss = around + self.group.size * self.dispersion / apart.clamp_min(1e-6)
        return loss, {"generator/loss": around.detach(), "generator/dispersion": apart.detach()}


class FenceStep(AlternatingStep):
    """Three updates on one batch; two of them while the discriminator is alone."""

    networks: FenceNetworks

    def updates(self, phase: Phase) -> list[Update]:
        n = self.networks
        o: Any = method_of(self.config)

        of_discriminator, of_generator = adversarial_adam(phase.learning_rate), adversarial_adam(o.generator_rate)
        real = LabelLoss(n.discriminator, 1.0, 1.0, self.bf16)
        fake = LabelLoss(n.discriminator, 0.0, o.fake_weight, self.bf16)
        turns = [
            Update("discriminator_adam", real, lambda batch: (batch.real,), of_discriminator),
            Update("discriminator_adam", fake, self._generated, of_discriminator),
        ]
        if phase.kind == "both":
            fence = FenceLoss(n, o.encirclement, o.dispersion, self.group, self.bf16)
            turns.append(Update("generator_adam", fence, self._drawn_z, of_generator))
        return turns

    def _generated(self, batch: Batch) -> tuple[Tensor, ...]:
        z = self._latents(random.LATENT_FOR_CRITIC, batch.positions)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return (self.networks.generator(z),)

    def _drawn_z(self, batch: Batch) -> tuple[Tensor, ...]:
        return (self._latents(random.LATENT_FOR_GENERATOR, batch.positions),)
