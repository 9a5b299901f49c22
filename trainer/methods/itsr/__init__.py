"""ITSR (Beggel et al. 2019): an adversarial autoencoder that rejects training images and learns again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_tools.errors import UserError
from trainer.methods.aae import SMALL, Aae
from trainer.schedule import Phase

if TYPE_CHECKING:
    import torch

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class Itsr(Aae):
    """An adversarial autoencoder that rejects training images with unlikely codes, and in the end unlearns those with
    large errors (ITSR, Beggel et al. 2019).

    Lengths are their 500, ten times 100, and 1,000 epochs of 5,000 images.
    """

    images: int = 2_500_000
    """Images shown before any is rejected."""
    rounds: int = 10
    """Times that images are rejected."""
    round_images: int = 500_000
    """Images shown after each."""
    last_images: int = 5_000_000
    """Images shown in the end, with negative weights."""
    nu: float = 0.05
    """The share of images rejected, at most, by a one-class SVM on codes; theirs is .02."""
    adds_up: bool = False
    """Whether an image stays rejected in later rounds; else each round finds its own."""
    error_quantile: float = 0.8
    """Rejected images whose error is above this quantile of all have a negative weight in the end, others 0."""
    negative_weight: float = 1.0
    """That weight, as a multiple of the share of images rejected."""

    title = "ITSR"

    @classmethod
    def presets(cls) -> dict[str, Any]:
        def small(images: int) -> Itsr:
            return cls(images=images // 4, round_images=images // 20, last_images=images // 4, **SMALL)

        return {"cells-small": small(250_000), "study": small(200_000), "demo": small(100_000)}

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        for name in ("nu", "error_quantile"):
            if not getattr(self, name) < 1:
                raise UserError(f"{self.option(name)} {getattr(self, name)} is not a share - give less than 1")

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        """All images, then a phase after each rejection, then that with negative weights."""
        lengths = [("all", self.images), *[("rejection", self.round_images)] * self.rounds, ("last", self.last_images)]
        phases, end = [], 0
        for index, (kind, images) in enumerate(lengths):
            phases.append(Phase(index, config.resolution, kind, end, end + images, self.minibatch, self.learning_rate))
            end += images
        return tuple(phases)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.itsr.step import ItsrStep

        return ItsrStep(config, networks, data, device, group)
