"""One step of f-AnoGAN: critic and generator first, then the encoder for them (Schlegl et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.methods.fanogan.networks import FAnoGanNetworks
from trainer.schedule import Phase
from trainer.scoring.terms.feature_residual import izi_f
from trainer.training import random
from trainer.training.losses import CriticLoss, GeneratorLoss
from trainer.training.step import Step


class EncoderLoss(nn.Module):
    """izi_f: E learns that G(E(x)) looks like x, and looks so to the critic; G and D stay as they are."""

    def __init__(self, networks: FAnoGanNetworks, bf16: bool = False) -> None:
        super().__init__()
        self.encoder = networks.encoder
        self._others = (
            networks.generator,
            networks.critic,
        )  # in a tuple: not this module's parameters
        self.bf16 = bf16

    def forward(self, real: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """real: N x C x R x R. Returns the loss and its parts."""
        generator, critic = self._others
        with torch.autocast(real.device.type, torch.bfloat16, enabled=self.bf16):
            z_hat = self.encoder(real)
            loss = izi_f(real, generator(z_hat), critic.features).mean()
        return loss, {"encoder/distance": loss.detach(), "encoder/z_hat_norm": z_hat.detach().norm(dim=1).mean()}


class FAnoGanStep(Step):
    """Five updates of the critic and one of the generator; or, in the second phase, one of the encoder."""

    networks: FAnoGanNetworks

    def begin(self, phase: Phase) -> None:
        n, c, rate = self.networks, self.config, phase.learning_rate
        self.phase = phase
        self.share_buffers()
        learning = phase.kind == "encoder"
        for network, learns in ((n.generator, not learning), (n.critic, not learning), (n.encoder, learning)):
            # Batch norm of a network that does not learn takes what it has learned, and learns nothing.
            network.requires_grad_(learns).train(learns)
        if learning:
            self.encoder_loss = self._reduced(EncoderLoss(n, self.bf16))
            self.trained = list(n.encoder.parameters())
            self.optimisers = {"encoder_rmsprop": torch.optim.RMSprop(self.trained, lr=rate, alpha=0.9)}
        else:
            self.critic_loss = self._reduced(CriticLoss(n.critic, c.penalty, 0.0, self.bf16))
            self.generator_loss = self._reduced(GeneratorLoss(n.generator, n.critic, self.bf16))
            self.trained = [*n.critic.parameters(), *n.generator.parameters()]
            self.optimisers = {
                name: torch.optim.Adam(network.parameters(), lr=rate, betas=(0.0, 0.9), fused=True)
                for name, network in (("critic_adam", n.critic), ("generator_adam", n.generator))
            }
        if self.group.size > 1:
            self._settle_reduction()

    def run(self, images_seen: int) -> dict[str, Tensor]:
        if self.phase.kind == "encoder":
            loss, parts = self.encoder_loss(self._real(*self._places(images_seen)))
            self._update(self.optimisers["encoder_rmsprop"], loss)
        else:
            parts = self._adversarial(images_seen)
        self.finite.look(self.trained, images_seen)
        return parts

    def _adversarial(self, images_seen: int) -> dict[str, Tensor]:
        """The critic's updates, each on images of its own, then the generator's; parts of the last ones."""
        parts: dict[str, Tensor] = {}
        for update in range(self.phase.critic_steps):
            places, positions = self._places(images_seen + update * self.phase.batch)
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                fake = self.networks.generator(self._latents(random.LATENT_FOR_CRITIC, positions))
            u = random.mixing(self.config.seed, positions)
            loss, parts = self.critic_loss(self._real(places, positions), fake, u)
            self._update(self.optimisers["critic_adam"], loss)
        _, positions = self._places(images_seen)
        loss, generator_parts = self.generator_loss(self._latents(random.LATENT_FOR_GENERATOR, positions))
        self._update(self.optimisers["generator_adam"], loss)
        return parts | generator_parts

    def _settle_reduction(self) -> None:
        """A pass that leaves nothing behind: after its first one DDP lays its buckets out again; see `GrowingStep`."""
        share = self.phase.batch // self.group.size
        z = torch.zeros(share, self.latent_size, device=self.device)
        with self._unchanged():
            images = self.networks.generator(z).detach()
            if self.phase.kind == "encoder":
                self.encoder_loss(images)[0].backward()
            else:
                self.critic_loss(images, images, torch.zeros(share, 1, 1, 1, device=self.device))[0].backward()
                self.generator_loss(z)[0].backward()
        for optimiser in self.optimisers.values():
            optimiser.zero_grad(set_to_none=True)
