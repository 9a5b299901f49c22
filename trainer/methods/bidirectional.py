"""What EGBAD and ALAD have in common: options, presets, two batches a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainer.methods.base import Trained
from trainer.methods.one_phase import OnePhaseMethod
from trainer.schedule import Phase

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.config import TrainConfig


@dataclass(frozen=True)
class BidirectionalMethod(OnePhaseMethod):
    """A generator and an encoder, each the other's inverse where a discriminator of both cannot tell them apart."""

    width: int = 128
    """Feature maps at half the image's side; they double as the side halves."""
    code_size: int = 100
    """Size of the latent vector."""
    images: int = 1_000_000
    """Images shown, half of them to the discriminators."""
    average_decay: float = 0.999
    """Decay of the networks' moving averages, which score."""

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """A quarter of the width, so that a training run takes minutes on two cores."""
        small: Any = {"width": 32, "code_size": 32, "minibatch": 32, "learning_rate": 2e-4, "average_decay": 0.99}
        return {
            "cells-small": cls(**small, images=160_000),
            "study": cls(**small, images=160_000),
            "demo": cls(**small, images=60_000),
        }

    def schedule(self, config: TrainConfig) -> tuple[Phase, ...]:
        """One phase, whose steps take a batch for the discriminators and another for generator and encoder."""
        (phase,) = super().schedule(config)
        return (replace(phase, critic_steps=2),)

    def z_size(self, config: TrainConfig) -> int:
        return self.code_size

    def reconstruct(self, trained: Trained, queries: Tensor) -> Tensor:
        return trained.networks["average_generator"](trained.networks["average_encoder"](queries))
