"""One step of EGBAD: the discriminator of images and latent vectors, then generator and encoder, on another batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.methods.alad.networks import BiganNetworks
from trainer.schedule import Phase
from trainer.training import random
from trainer.training.alternating import AlternatingStep, Batch, Update, adversarial_adam
from trainer.training.averages import follow
from trainer.training.losses import frozen


def real_loss(logits: Tensor) -> Tensor:
    """Cross entropy with the label 1."""
    return F.softplus(-logits).mean()


def fake_loss(logits: Tensor) -> Tensor:
    """Cross entropy with the label 0."""
    return F.softplus(logits).mean()


class JointLoss(nn.Module):
    """An image and what it encodes to are 1, a generated image and what it was made of are 0."""

    def __init__(self, discriminator: nn.Module, bf16: bool = False) -> None:
        super().__init__()
        self.discriminator, self.bf16 = discriminator, bf16

    def forward(self, real: Tensor, z_hat: Tensor, fake: Tensor, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """real, fake: N x C x r x r; z_hat, z: N x latent size. Returns the loss and its parts."""
        with torch.autocast(real.device.type, torch.bfloat16, enabled=self.bf16):
            (_, encoded), (_, generated) = self.discriminator(real, z_hat), self.discriminator(fake, z)
        loss = real_loss(encoded) + fake_loss(generated)
        return loss, {"discriminator/loss": loss.detach()}


class BiganLoss(nn.Module):
    """Generator and encoder, each against the discriminator's opinion of its half."""

    def __init__(self, networks: BiganNetworks, bf16: bool = False) -> None:
        super().__init__()
        self.generator, self.encoder, self.bf16 = networks.generator, networks.encoder, bf16
        self._discriminator = (networks.discriminator,)  # in a tuple: it does not learn here

    def forward(self, real: Tensor, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """real: N x C x r x r; z: N x latent size. Returns the loss and its parts."""
        with torch.autocast(real.device.type, torch.bfloat16, enabled=self.bf16):
            fake, z_hat = self.generator(z), self.encoder(real)
            _, generated = frozen(self._discriminator[0], fake, z)
            _, encoded = frozen(self._discriminator[0], real, z_hat)
        losses = {"generator/loss": real_loss(generated), "encoder/loss": fake_loss(encoded)}
        parts = losses | {"encoder/z_hat_norm": z_hat.norm(dim=1).mean()}
        return losses["generator/loss"] + losses["encoder/loss"], {name: each.detach() for name, each in parts.items()}


class BidirectionalStep(AlternatingStep):
    """What EGBAD's steps and ALAD's share."""

    networks: Any

    def made(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Real images, what they encode to, generated images, what they were made of."""
        z = self._latents(random.LATENT_FOR_CRITIC, batch.positions)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return batch.real, self.networks.encoder(batch.real), self.networks.generator(z), z

    def drawn(self, batch: Batch) -> tuple[Tensor, ...]:
        return batch.real, self._latents(random.LATENT_FOR_GENERATOR, batch.positions)

    def finish(self) -> None:
        """Averages follow their networks."""
        options: Any = method_of(self.config)
        networks = self.networks.by_name()
        for name in networks:
            if name.startswith("average_"):
                follow(networks[name], networks[name.removeprefix("average_")], options.average_decay)


class EgbadStep(BidirectionalStep):
    """Two updates, on a batch each."""

    networks: BiganNetworks

    def updates(self, phase: Phase) -> list[Update]:
        n, adam = self.networks, adversarial_adam(phase.learning_rate)
        joint, bigan = JointLoss(n.discriminator, self.bf16), BiganLoss(n, self.bf16)
        return [
            Update("discriminator_adam", joint, self.made, adam),
            Update("generator_adam", bigan, self.drawn, adam, batch=1),
        ]
