"""f-AnoGAN (Schlegl et al. 2019): a WGAN-GP of residual networks, then an encoder for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainer.methods.base import Method, Trained, check_at_most
from trainer.schedule import Phase

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class FAnoGan(Method):
    """f-AnoGAN (Schlegl et al. 2019): a WGAN-GP, then an encoder for it; the defaults are its authors'.

    Its networks, schedule, batch and step sizes are these; --resolution, --penalty and what says how a run runs are
    shared with the other methods.
    """

    width: int = 64
    """Feature maps at full resolution, up to eight times as many below."""
    latent_size: int = 128
    """Size of the latent vector."""
    gan_images: int = 3_679_599
    """Images shown to the critic while generator and critic train (7 epochs of KTH)."""
    encoder_images: int = 3_200_000
    """Images shown to the encoder afterwards (50,000 batches)."""
    minibatch: int = 64
    """Global minibatch."""
    critic_steps: int = 5
    """Critic updates, each on a batch of its own, per generator update."""
    learning_rate: float = 1e-4
    """Adam's step size for generator and critic."""
    encoder_learning_rate: float = 5e-5
    """RMSProp's step size for the encoder."""

    title = "f-AnoGAN"
    known_by = "A"

    @staticmethod
    def presets() -> dict[str, FAnoGan]:
        """On so few images its authors' step sizes learn next to nothing."""
        small = FAnoGan(
            width=16,
            latent_size=32,
            gan_images=120_000,
            encoder_images=60_000,
            minibatch=16,  # as in Berg et al. 2019
            learning_rate=4e-4,
            encoder_learning_rate=2e-4,
        )
        return {
            "cells-small": small,
            "study": replace(small, gan_images=96_000, encoder_images=40_000),
            "demo": replace(small, gan_images=30_000, encoder_images=15_000),
        }

    def check(self, config: TrainConfig) -> None:
        self.check_batch_norm(config)
        super().check(config)
        check_at_most("--fanogan.width", self.width, 2**16)
        check_at_most("--fanogan.latent-size", self.latent_size, 2**16)

    def minibatches(self, config: TrainConfig) -> Iterator[tuple[str, int]]:
        yield "--fanogan.minibatch", self.minibatch

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        """Generator and critic, then the encoder, all at the final resolution."""
        r, end = config.resolution, self.gan_images + self.encoder_images
        return (
            Phase(0, r, "gan", 0, self.gan_images, self.minibatch, self.learning_rate, self.critic_steps),
            Phase(1, r, "encoder", self.gan_images, end, self.minibatch, self.encoder_learning_rate),
        )

    def z_size(self, config: TrainConfig) -> int:
        return self.latent_size

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.fanogan.networks import FAnoGanNetworks

        return FAnoGanNetworks.build(config.resolution, channels, self.width, self.latent_size, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.fanogan.step import FAnoGanStep

        return FAnoGanStep(config, networks, data, device, group)

    def ready(self, config: TrainConfig, images_seen: int) -> bool:
        return images_seen > self.gan_images

    def encode(self, trained: Trained, queries: Tensor) -> Tensor:
        return trained.networks["encoder"](queries)

    def generate(self, trained: Trained, z: Tensor) -> Tensor:
        return trained.networks["generator"](z)

    def criticise(self, trained: Trained, images: Tensor) -> Tensor:
        return trained.networks["critic"](images)

    def features(self, trained: Trained, images: Tensor) -> Tensor:
        critic: Any = trained.networks["critic"]
        return critic.features(images)
