"""Fence GAN (Ngo et al. 2019): a generator on the fence around the data, whose discriminator scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from data_tools.errors import UserError
from trainer.methods.one_phase import OnePhaseMethod
from trainer.schedule import Phase

if TYPE_CHECKING:
    import torch

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class FenceGan(OnePhaseMethod):
    """A generator learns the border of the data, so that the discriminator's doubt says how unusual an image is
    (Fence GAN, Ngo et al. 2019).

    Sizes are the authors' for CIFAR-10, with their 15 and 150 epochs of 5,000 images. Dropout is left out, and the slow
    fall of their learning rates, 6 % in all.
    """

    width: int = 32
    """Feature maps at half the image's side; they double as the side halves."""
    code_size: int = 256
    """Size of the latent vector."""
    first_images: int = 75_000
    """Images shown to the discriminator alone, before the generator learns."""
    images: int = 750_000
    """Images shown afterwards."""
    learning_rate: float = 1e-4
    """Adam's step size of the discriminator."""
    generator_rate: float = 1e-3
    """Adam's step size of the generator."""
    encirclement: float = 0.5
    """The discriminator's target for generated images, between 0 (not real) and 1 (real)."""
    dispersion: float = 10.0
    """Weight of one over the mean distance of generated images from their mean."""
    fake_weight: float = 0.5
    """Weight of generated images in the discriminator's loss."""

    title = "Fence GAN"
    known_by = "doubt"
    may_be_0 = ("dispersion",)
    scores_with = ("discriminator",)

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """Half the width, so that a training run takes minutes on two cores."""
        small: Any = {"width": 16, "code_size": 64, "minibatch": 64, "first_images": 15_000}
        return {
            "cells-small": cls(**small, images=150_000),
            "study": cls(**small, images=150_000),
            "demo": cls(**small, images=75_000),
        }

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        if self.encirclement >= 1:
            raise UserError(f"{self.option('encirclement')} {self.encirclement} is not a share - give less than 1")

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        """The discriminator, then both."""
        (both,) = super().schedule(config)
        end = self.first_images + self.images
        return (
            replace(both, kind="discriminator", end=self.first_images),
            replace(both, index=1, kind="both", start=self.first_images, end=end),
        )

    def z_size(self, config: TrainConfig) -> int:
        return self.code_size

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.fence_gan.networks import FenceNetworks

        return FenceNetworks.build(config.resolution, channels, self.width, self.code_size, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.fence_gan.step import FenceStep

        return FenceStep(config, networks, data, device, group)

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.fence_gan.terms import DOUBT

        return (DOUBT,)
