"""What autoencoders of convolutions have in common: options, phases, networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.methods.base import Trained
from trainer.methods.one_phase import OnePhaseMethod

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.config import TrainConfig
    from trainer.networks.base import NetworkSet
    from trainer.scoring.terms.base import Term


@dataclass(frozen=True)
class AutoencodingMethod(OnePhaseMethod):
    """An autoencoder of strided convolutions; its options are those of E3Outlier (Wang et al. 2019)."""

    weight_decay: float = 5e-4
    """Weight decay: this times each weight is added to its gradient."""

    may_be_0 = ("weight_decay",)

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """A quarter of the width, so that a training run takes minutes on two cores, and a code that holds less: what
        is unusual does not fit into it (tuning/results/codes.md).
        """
        small = {"width": 16, "code_size": 8, "images": 250_000}
        return {
            "cells-small": cls(**small),
            "study": cls(**small | {"images": 200_000}),
            "demo": cls(**small | {"images": 100_000}),
        }

    def networks(self, config: TrainConfig, channels: int, samples: int) -> NetworkSet:
        from trainer.methods.ae.networks import Autoencoder

        return Autoencoder.build(config.resolution, channels, self.width, self.code_size, config.seed)

    def reconstruct(self, trained: Trained, queries: Tensor) -> Tensor:
        return trained.networks["decoder"](trained.networks["encoder"](queries))

    def own_terms(self) -> tuple[Term, ...]:
        from trainer.methods.ae.terms import SQUARED_ERROR

        return (SQUARED_ERROR,)
