"""An adversarial autoencoder (Makhzani et al. 2015), as Beggel et al. (2019) detect anomalies by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trainer.methods.base import Trained, check_at_most
from trainer.methods.one_phase import WIDEST, OnePhaseMethod

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term
    from trainer.training.group import Group
    from trainer.training.step import Step

Layers = Literal["dense", "convolutions"]


SMALL: Any = {"layers": "convolutions", "width": 16, "code_size": 8, "discriminator_width": 256}
"""Few maps, so that a training run takes minutes on two cores; the code: tuning/results/codes.md."""


@dataclass(frozen=True)
class Aae(OnePhaseMethod):
    """An autoencoder whose codes are made normally distributed: an image with a large error, or a code far from the
    origin, is unusual (adversarial autoencoder, as in Beggel et al. 2019).

    Layers, code size and length (1,000 epochs of 5,000 images) are theirs; their batch and step sizes are not known.
    """

    layers: Layers = "dense"
    """dense: two layers of `width`, theirs; convolutions: those of the plain autoencoder, `width` maps at first."""
    width: int = 1000
    """Size of the dense layers, or feature maps at half the side of an image."""
    code_size: int = 2
    """Size of the code that an image is compressed to."""
    discriminator_width: int = 1000
    """Size of the two layers of the discriminator, which tells codes from normally distributed ones."""
    images: int = 5_000_000
    """Images shown."""
    minibatch: int = 100
    """Global minibatch."""
    learning_rate: float = 1e-3
    """Adam's step size for the reconstruction."""
    adversarial_rate: float = 2e-4
    """Adam's step size for discriminator and encoder against each other."""

    title = "AAE"
    known_by = "joint"
    scores_with = ("encoder", "decoder")

    @classmethod
    def presets(cls) -> dict[str, Any]:
        return {
            "cells-small": cls(**SMALL, images=250_000),
            "study": cls(**SMALL, images=200_000),
            "demo": cls(**SMALL, images=100_000),
        }

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        check_at_most(self.option("discriminator_width"), self.discriminator_width, WIDEST)

    def z_size(self, config: TrainConfig) -> int:
        return self.code_size

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.aae.networks import AdversarialAutoencoder

        return AdversarialAutoencoder.build(self, config.resolution, channels, samples, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.aae.step import AaeStep

        return AaeStep(config, networks, data, device, group)

    def reconstruct(self, trained: Trained, queries: Tensor) -> Tensor:
        return trained.networks["decoder"](trained.networks["encoder"](queries)).view_as(queries)

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.aae.terms import CODE, JOINT
        from trainer.methods.ae.terms import SQUARED_ERROR

        return JOINT, SQUARED_ERROR, CODE
