"""An autoencoder of convolutions: the baseline that all of the rivals are measured by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.methods.autoencoding import AutoencodingMethod
from trainer.methods.base import Variant
from trainer.methods.outliers import ALPHA, Outliers, check_outliers, variants_with

if TYPE_CHECKING:
    import torch

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class Ae(AutoencodingMethod):
    """An autoencoder of strided convolutions: an image that it cannot reconstruct is unusual (as in E3Outlier, Wang et
    al. 2019).

    Networks, batch and step size are theirs; the length is their 250 epochs of 5,000 images.
    """

    outliers: Outliers = "blind"
    """What is done with the images of each batch that look anomalous (LOE, Qiu et al. 2022). blind: nothing; hard:
    their errors are pushed up; soft: half of that; refine: they are left out."""
    alpha: float = ALPHA
    """The assumed share of anomalies."""

    title = "autoencoder"
    known_by = "e"
    may_be_0 = (*AutoencodingMethod.may_be_0, "alpha")

    @classmethod
    def variants(cls) -> dict[str, Variant]:
        return variants_with(cls)

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        check_outliers(self)

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.ae.step import AutoencoderStep

        return AutoencoderStep(config, networks, data, device, group)
