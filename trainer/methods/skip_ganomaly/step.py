"""One step of Skip-GANomaly: the generator first, then the discriminator (Akcay et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.methods.skip_ganomaly.networks import CodeDiscriminator, SkipNetworks
from trainer.schedule import Phase
from trainer.training.alternating import AlternatingStep, Batch, Update, adversarial_adam
from trainer.training.losses import frozen


class SkipLoss(nn.Module):
    """Cross entropy with the label real; differences of pixels and of the discriminator's features."""

    def __init__(self, networks: SkipNetworks, options: Any, bf16: bool = False) -> None:
        super().__init__()
        self.generator, self._discriminator = networks.generator, (networks.discriminator,)  # which does not learn here
        self.options, self.bf16 = options, bf16

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images: N x C x r x r. Returns the loss and its parts."""
        (discriminator,) = self._discriminator
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            matches = self.generator(images)
            with torch.no_grad():
                wanted, _ = frozen(discriminator, images)
            matched, logits = frozen(discriminator, matches)
        features, pixels, fooled = F.mse_loss(matched, wanted), F.l1_loss(matches, images), F.softplus(-logits).mean()
        o = self.options
        loss = o.feature_weight * features + o.pixel_weight * pixels + o.fooling_weight * fooled
        parts = {"generator/loss": loss, "generator/pixels": pixels, "generator/fooled": fooled}
        return loss, {name: part.detach() for name, part in parts.items()}


class SkipDiscriminatorLoss(nn.Module):
    """Cross entropies of real and reconstructed images, and the difference of their features, as the authors' code."""

    def __init__(self, discriminator: CodeDiscriminator, feature_weight: float, bf16: bool = False) -> None:
        super().__init__()
        self.discriminator, self.feature_weight, self.bf16 = discriminator, feature_weight, bf16

    def forward(self, images: Tensor, matches: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """images, matches: N x C x r x r. Returns the loss and its parts."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            (wanted, real), (matched, fake) = self.discriminator(images), self.discriminator(matches)
        told = F.softplus(-real).mean() + F.softplus(fake).mean()
        loss = told + self.feature_weight * F.mse_loss(matched, wanted)
        return loss, {"discriminator/loss": loss.detach()}


class SkipStep(AlternatingStep):
    """Two updates on one batch."""

    networks: SkipNetworks

    def updates(self, phase: Phase) -> list[Update]:
        n = self.networks
        options: Any = method_of(self.config)

        adam = adversarial_adam(phase.learning_rate)
        telling = SkipDiscriminatorLoss(n.discriminator, options.feature_weight, self.bf16)
        return [
            Update("generator_adam", SkipLoss(n, options, self.bf16), lambda batch: (batch.real,), adam),
            Update("discriminator_adam", telling, self._with_matches, adam),
        ]

    def _with_matches(self, batch: Batch) -> tuple[Tensor, ...]:
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return batch.real, self.networks.generator(batch.real)
