"""What GANomaly and Skip-GANomaly have in common: options and presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.methods.one_phase import OnePhaseMethod


@dataclass(frozen=True)
class ReconstructingMethod(OnePhaseMethod):
    """Images are reconstructed, judged by pixels and by features of a discriminator."""

    minibatch: int = 64
    """Global minibatch."""
    learning_rate: float = 2e-4
    """Adam's step size."""
    pixel_weight: float = 50.0
    """Weight of the mean absolute difference of pixels."""
    feature_weight: float = 1.0
    """Weight of the mean squared difference of the discriminator's features."""

    may_be_0 = ("pixel_weight", "feature_weight")

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """A quarter of the width, so that a training run takes minutes on two cores."""
        small: Any = {"width": 16, "code_size": 32, "learning_rate": 4e-4}
        return {
            "cells-small": cls(**small, images=150_000),
            "study": cls(**small, images=150_000),
            "demo": cls(**small, images=75_000),
        }
