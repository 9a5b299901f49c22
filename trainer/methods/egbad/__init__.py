"""EGBAD (Zenati et al. 2018): a generator and an encoder against a discriminator of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trainer.methods.bidirectional import BidirectionalMethod

if TYPE_CHECKING:
    import torch

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term
    from trainer.training.group import Group
    from trainer.training.step import Step

Layers = Literal["dcgan", "digits"]


@dataclass(frozen=True)
class Egbad(BidirectionalMethod):
    """A bidirectional GAN: an image is unusual where generator and encoder do not reconstruct it, in pixels and in the
    discriminator's features (EGBAD, Zenati et al. 2018).

    The length is 100 epochs of 5,000 images.
    """

    layers: Layers = "dcgan"
    """dcgan: those of ALAD, its successor, for 32x32 in colour; digits: those of the paper, which at width 32 and code
    size 200 are the authors' for MNIST."""
    minibatch: int = 100
    """Global minibatch."""
    learning_rate: float = 1e-5
    """Adam's step size."""

    title = "EGBAD"
    known_by = "bigan"
    scores_with = ("average_generator", "average_encoder", "average_discriminator")

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.alad.networks import BiganNetworks
        from trainer.methods.egbad.networks import of_digits

        build = of_digits if self.layers == "digits" else BiganNetworks.build
        return build(config.resolution, channels, self.width, self.code_size, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.egbad.step import EgbadStep

        return EgbadStep(config, networks, data, device, group)

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.egbad.terms import BIGAN, BIGAN_DOUBT

        return BIGAN, BIGAN_DOUBT
