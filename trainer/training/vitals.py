"""Whether a run is alive: a function of its weights and the count of images alone, so that kills change nothing.

Means over a line of metrics would not do: a machine that goes away ends a line early.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from trainer.scoring.inference import Inference
from trainer.training import random
from trainer.training.health import ALIKE, DEAD_SLOPE

BLOWN_UP = 1e4
"""The greatest score of a living critic: what is paid for E[D(x)^2] holds it within some tens."""
MARKS = 3
"""Marks in a row at which a training looks dead, after which it is: it may catch itself after one."""


class FailedError(Exception):
    """A training is found dead, or its weights are NaN or infinite for the second time."""

    def __init__(self, images_seen: int, why: str) -> None:
        super().__init__(f"{why}, at {images_seen:,} images")
        self.images_seen, self.why = images_seen, why


@dataclass(frozen=True)
class Vitals:
    """What is measured at a mark; of what a method does not have nothing is known.

    spread: standard deviation of generated images over that of real ones, means over pixels. slope: mean length of the
    critic's gradient halfway between real and generated images; 1 is aimed at. score: its greatest score.
    """

    spread: float | None = None
    slope: float | None = None
    score: float | None = None

    @property
    def trouble(self) -> str:
        """What is wrong, or nothing."""
        if self.score is not None and not self.score < BLOWN_UP:
            return f"the critic has blown up: it scores {self.score:.2g}"
        if self.slope is not None and not self.slope > DEAD_SLOPE:
            return f"the critic is dead: its slope is {self.slope:.2g} where 1 is aimed at"
        if self.spread is not None and not self.spread > ALIKE:
            return f"the generator has collapsed: its images differ {self.spread:.2g} times as much as real ones"
        return ""

    def metrics(self) -> Mapping[str, float]:
        """For a line of metrics."""
        result = {"health/spread": self.spread, "health/slope": self.slope}
        return {name: value for name, value in result.items() if value is not None and math.isfinite(value)}


def vitals(inference: Inference, shown: np.ndarray) -> Vitals:
    """inference: networks as at test time; shown: some training images, uint8 N x H x W x C, always the same ones."""
    method, offers, seed = inference.method, inference.method.offers(), inference.config.seed
    real = next(inference.batches(shown, len(shown)))
    fake = spread = slope = score = None
    with torch.no_grad():
        if "generate" in offers:
            z = random.latents(seed, random.LATENT_FOR_GENERATOR, torch.arange(len(real)), inference.config.latent_size)
            fake = method.generate(inference.trained, z.to(inference.device))
            spread = float(fake.std(dim=0).mean() / real.std(dim=0).mean().clamp_min(1e-12))
    if "criticise" in offers and fake is not None:
        both = torch.cat([real, torch.lerp(real, fake, 0.5)]).requires_grad_(True)
        with torch.enable_grad():
            scores = method.criticise(inference.trained, both)
            (gradient,) = torch.autograd.grad(scores[len(real) :].sum(), both)
        slope = float(gradient[len(real) :].flatten(1).norm(dim=1).mean())
        score = float(scores.detach().abs().max())
    return Vitals(spread, slope, score)
