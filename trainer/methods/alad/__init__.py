"""ALAD (Zenati et al. 2018): EGBAD with discriminators of reconstructed images and of reconstructed latent vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.methods.bidirectional import BidirectionalMethod

if TYPE_CHECKING:
    import torch

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class Alad(BidirectionalMethod):
    """A bidirectional GAN with cycles: an image is unusual when a discriminator sees its reconstruction as different
    (ALAD, Zenati et al. 2018).

    The authors stop when the score of images that they call normal no longer falls; here the length is 100 epochs of
    5,000 images.
    """

    minibatch: int = 32
    """Global minibatch."""
    learning_rate: float = 2e-4
    """Adam's step size."""

    title = "ALAD"
    known_by = "pair"
    scores_with = ("average_generator", "average_encoder", "average_of_images")

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.alad.networks import AladNetworks

        return AladNetworks.build(config.resolution, channels, self.width, self.code_size, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.alad.step import AladStep

        return AladStep(config, networks, data, device, group)

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.alad.terms import PAIR

        return (PAIR,)
