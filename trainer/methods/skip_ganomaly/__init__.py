"""Skip-GANomaly (Akcay et al. 2019): a U-Net against a discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.methods.base import Trained
from trainer.methods.reconstructing import ReconstructingMethod

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class SkipGanomaly(ReconstructingMethod):
    """A U-Net, adversarially trained to reconstruct images: an image is unusual where the reconstruction differs, in
    pixels and in the discriminator's features (Skip-GANomaly, Akcay et al. 2019).

    Its skips copy anomalies too. A noise that the authors' code adds without drawing it is left out.
    """

    code_size: int = 100
    """Features that the discriminator judges by."""
    images: int = 125_000
    """Images shown; the authors' 25 epochs of 5,000."""
    fooling_weight: float = 1.0
    """Weight of the cross entropy of reconstructions with the label real."""

    title = "Skip-GANomaly"
    known_by = "skipped"
    may_be_0 = (*ReconstructingMethod.may_be_0, "fooling_weight")
    scores_with = ("generator", "discriminator")

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.skip_ganomaly.networks import SkipNetworks

        return SkipNetworks.build(config.resolution, channels, self.width, self.code_size, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.skip_ganomaly.step import SkipStep

        return SkipStep(config, networks, data, device, group)

    def reconstruct(self, trained: Trained, queries: Tensor) -> Tensor:
        return trained.networks["generator"](queries)

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.skip_ganomaly.terms import SKIPPED

        return (SKIPPED,)
