"""The objective of generator and encoder together (Berg et al. 2019, eq. 6 and 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config import Coupling, Distance
from trainer.networks.layers import pixel_norm
from trainer.networks.progressive import Critic, Encoder, Generator
from trainer.training.losses import frozen

CLUSTERGAN_WEIGHT = 10.0


class GeneratorEncoderLoss(nn.Module):
    """-E[D(G(z))] + weight d, minimised jointly over generator and encoder.

    distance: "image", d = mean |G(z) - G(E(G(z)))|; "latent", d = mean |z - E(G(z))| with z as the generator sees it,
        after normalisation; or "latent-squared", d = 10 mean (z - E(G(z)))^2, which is ClusterGAN's (Mukherjee et al.
        2019) without its clusters.
    coupling: "joint", the gradient of d reaches generator and encoder (the paper); or "encoder-only", d updates the
        encoder alone and the generator sees only the critic (the authors' code).
    """

    def __init__(
        self,
        generator: Generator,
        encoder: Encoder,
        critic: Critic,
        distance: Distance,
        coupling: Coupling,
        weight: float,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        self.generator, self.encoder = generator, encoder
        self._critic = (critic,)  # in a tuple, so that the critic's parameters are not this module's
        self.distance, self.coupling, self.weight, self.bf16 = distance, coupling, weight, bf16

    def forward(self, z: Tensor, resolution: int, alpha: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """z: N x latent size, N a multiple of 4. Returns the loss and its parts."""
        joint = self.coupling == "joint"
        with torch.autocast(z.device.type, torch.bfloat16, enabled=self.bf16):
            fake = self.generator(z, resolution, alpha)
            adversarial = -frozen(self._critic[0], fake, resolution, alpha).mean()
            target = fake if joint else fake.detach()
            z_hat = self.encoder(target, resolution, alpha)
            if self.distance == "image":
                if joint:
                    again = self.generator(z_hat, resolution, alpha)
                else:
                    again = frozen(self.generator, z_hat, resolution, alpha)
                d = (target - again).abs().mean()
            else:
                difference = pixel_norm(z) - z_hat
                squared = self.distance == "latent-squared"
                d = CLUSTERGAN_WEIGHT * difference.square().mean() if squared else difference.abs().mean()
        loss = adversarial + self.weight * d
        parts = {
            "generator/loss": loss,
            "generator/adversarial": adversarial,
            "generator/spread": fake.std(dim=0).mean(),
            "encoder/distance": d,
            "encoder/z_hat_norm": z_hat.norm(dim=1).mean(),
        }
        return loss, {name: part.detach() for name, part in parts.items()}
