"""One step of ALAD: three discriminators, then generator and encoder, on another batch (Zenati et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.methods.alad.networks import AladNetworks
from trainer.methods.egbad.step import BidirectionalStep, fake_loss, real_loss
from trainer.schedule import Phase
from trainer.training.alternating import Batch, Update, adversarial_adam
from trainer.training.losses import frozen

Made = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Real images, their codes, generated images, the codes they were made from, and reconstructions of both."""


class DiscriminatorsLoss(nn.Module):
    """The sum of three losses of two cross entropies each; at a guess each of the three is 2 ln 2."""

    def __init__(self, networks: AladNetworks, bf16: bool = False) -> None:
        super().__init__()
        self.joint, self.of_images, self.of_latents = networks.discriminator, networks.of_images, networks.of_latents
        self.bf16 = bf16

    def forward(
        self, real: Tensor, z_hat: Tensor, fake: Tensor, z: Tensor, matches: Tensor, z_again: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Made`. Returns the loss and its parts."""
        with torch.autocast(real.device.type, torch.bfloat16, enabled=self.bf16):
            joint = real_loss(self.joint(real, z_hat)[1]) + fake_loss(self.joint(fake, z)[1])
            images = real_loss(self.of_images(real, real)[1]) + fake_loss(self.of_images(real, matches)[1])
            latents = real_loss(self.of_latents(z, z)) + fake_loss(self.of_latents(z, z_again))
        parts = {"discriminator/loss": joint, "of_images/loss": images, "of_latents/loss": latents}
        return joint + images + latents, {name: each.detach() for name, each in parts.items()}


class AladLoss(nn.Module):
    """Generator and encoder against all three, with labels reversed."""

    def __init__(self, networks: AladNetworks, bf16: bool = False) -> None:
        super().__init__()
        self.generator, self.encoder, self.bf16 = networks.generator, networks.encoder, bf16
        self._judges = (networks.discriminator, networks.of_images, networks.of_latents)  # which do not learn here

    def forward(self, real: Tensor, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """real: N x C x r x r; z: N x latent size. Returns the loss and its parts."""
        joint, of_images, of_latents = self._judges
        with torch.autocast(real.device.type, torch.bfloat16, enabled=self.bf16):
            fake, z_hat = self.generator(z), self.encoder(real)
            matches, z_again = self.generator(z_hat), self.encoder(fake)
            generated, encoded = frozen(joint, fake, z)[1], frozen(joint, real, z_hat)[1]
            images, latents = frozen(of_images, real, matches)[1], frozen(of_latents, z, z_again)
        generator, encoder = real_loss(generated), fake_loss(encoded)
        cycles = real_loss(images) + real_loss(latents)
        norm = z_hat.norm(dim=1).mean()
        parts = {
            "generator/loss": generator,
            "encoder/loss": encoder,
            "cycles/loss": cycles,
            "encoder/z_hat_norm": norm,
        }
        return generator + encoder + cycles, {name: each.detach() for name, each in parts.items()}


class AladStep(BidirectionalStep):
    """Two updates, on a batch each."""

    networks: AladNetworks

    def updates(self, phase: Phase) -> list[Update]:
        n, adam = self.networks, adversarial_adam(phase.learning_rate)
        return [
            Update("discriminators_adam", DiscriminatorsLoss(n, self.bf16), self._made_again, adam),
            Update("generator_adam", AladLoss(n, self.bf16), self.drawn, adam, batch=1),
        ]

    def _made_again(self, batch: Batch) -> Made:
        real, z_hat, fake, z = self.made(batch)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return real, z_hat, fake, z, self.networks.generator(z_hat), self.networks.encoder(fake)
