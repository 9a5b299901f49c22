"""DRAE (Xia et al. 2015): an autoencoder that tells outliers by their errors while it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.methods.autoencoding import AutoencodingMethod

if TYPE_CHECKING:
    import torch

    from data_tools.dataset.training_set import TrainingSet
    from trainer.config import TrainConfig
    from trainer.training.group import Group
    from trainer.training.step import Step


@dataclass(frozen=True)
class Drae(AutoencodingMethod):
    """An autoencoder that learns from the smaller errors of each batch and separates them from the larger (Xia et al.
    2015).

    Errors are split by Otsu's rule, which among few outliers rejects a third and more of the normal images: the share
    is logged as drae/rejected.
    """

    split_weight: float = 0.1
    """Weight of the scatter within both sides of the split over the total scatter, which is to be small."""

    title = "DRAE"
    known_by = "e"
    may_be_0 = (*AutoencodingMethod.may_be_0, "split_weight")

    def step(self, config: TrainConfig, networks: Any, data: TrainingSet, device: torch.device, group: Group) -> Step:
        from trainer.methods.drae.step import DraeStep

        return DraeStep(config, networks, data, device, group)
