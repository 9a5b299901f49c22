"""GANomaly (Akcay et al. 2018): encoder, decoder and encoder again, against a discriminator."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
class Ganomaly(ReconstructingMethod):
    """An autoencoder, adversarially trained, whose reconstruction is encoded again: an image is unusual when its two
    codes differ (GANomaly, Akcay et al. 2018).

    All sizes are the authors', with their 15 epochs of 5,000 images. Two things of their code are left out: scores by
    batch norm of the test batch, and a discriminator that is drawn again when its loss is below 1e-5.
    """

    code_size: int = 100
    """Size of a code."""
    images: int = 75_000
    """Images shown."""
    code_weight: float = 1.0
    """Weight of the mean squared difference of both codes."""

    title = "GANomaly"
    known_by = "recoded"
    may_be_0 = (*ReconstructingMethod.may_be_0, "code_weight")
    scores_with = ("encoder", "decoder", "encoder_again")

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """With a code that holds less (tuning/results/codes.md)."""
        return {name: replace(each, code_size=8) for name, each in super().presets().items()}

    def z_size(self, config: TrainConfig) -> int:
        return self.code_size

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.ganomaly.networks import GanomalyNetworks

        return GanomalyNetworks.build(config.resolution, channels, self.width, self.code_size, config.seed)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.ganomaly.step import GanomalyStep

        return GanomalyStep(config, networks, data, device, group)

    def reconstruct(self, trained: Trained, queries: Tensor) -> Tensor:
        return trained.networks["decoder"](trained.networks["encoder"](queries))

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.ganomaly.terms import RECODED

        return (RECODED,)
