"""The health of a training run: weights that are no numbers stop it, other troubles are warned of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.private import greatest_values
from trainer.schedule import Phase

DEAD_SLOPE, ALIKE, DRIFT = 0.01, 0.05, 8.0
"""Where warnings begin: the critic's slope (1 is aimed at), generated against real spread, ||z_hat|| / sqrt(N_z)."""
LOSING, MIN_STEPS = 0.75, 100
"""Share of a phase's steps with a negative Wasserstein estimate, and steps of a phase below which it is chance."""


class NotFiniteError(Exception):
    """A weight became infinite or no number."""

    def __init__(self, images_seen: int) -> None:
        super().__init__(f"the weights are NaN or infinite after the step at {images_seen:,} images")
        self.images_seen = images_seen


class FiniteWatch:
    """Finds the step after which a weight is not finite, without holding a GPU up.

    Gradients are shared by all workers, so all of them find the same step. On a GPU the answer comes with the next
    step, or with `check_all`, without which no weights are saved.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.waiting: tuple[Tensor, torch.cuda.Event, int] | None = None

    def look(self, parameters: Sequence[Tensor], images_seen: int) -> None:
        """Check the weights after a step; raises NotFiniteError."""
        total = _largest(parameters)
        if not self.on_gpu:
            _check(total, images_seen)
            return
        self.settle()
        there = torch.empty((), pin_memory=True).copy_(total, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self.waiting = (there, copied, images_seen)

    def check_all(self, tensors: Sequence[Tensor], images_seen: int) -> None:
        """Check at once, for what is about to be saved; raises NotFiniteError."""
        self.settle()
        _check(_largest(tensors), images_seen)

    def settle(self) -> None:
        """Wait for the answer to the last look; raises NotFiniteError."""
        if self.waiting:
            there, copied, images_seen = self.waiting
            self.waiting = None
            copied.synchronize()
            _check(there, images_seen)


def _largest(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of the greatest absolute values; not finite as soon as one number is."""
    return greatest_values(tensors).sum()


def _check(total: Tensor, images_seen: int) -> None:
    if not math.isfinite(total.detach()):
        raise NotFiniteError(images_seen)


def losing_warning(lines: Sequence[Mapping[str, Any]], phase: Phase, is_learned: bool) -> str:
    """What is wrong with a phase that has ended, by its lines of metrics: its critic mostly lost; or nothing.

    is_learned: whether the run learned its contrast, which need not be advised then.
    """
    shares = [line["critic/losing"] for line in lines if "critic/losing" in line and line["images_seen"] > phase.start]
    if not shares or (phase.end - phase.start) / phase.images_a_step < MIN_STEPS:
        return ""
    share = sum(shares) / len(shares)
    if share < LOSING:
        return ""
    return (
        f"the critic lost in {share:.0%} of the steps of {phase.name}: it took generated images for real ones"
        f" - lower --generator-rate{'' if is_learned else ', or give --contrast learned'}"
    )


def warnings(values: dict[str, float], latent_size: int) -> dict[str, str]:
    """What is wrong with a line of metrics, a sentence by whom it is about; most often nothing.

    Lines of a method, or of a phase, without one of the networks say nothing of it.
    """
    result = {}
    if values.get("critic/slope", 1) < DEAD_SLOPE:
        result["critic"] = (
            f"the critic is dead: its slope is {values['critic/slope']:.2g} where 1 is aimed at"
            " - lower --learning-rate or raise --penalty"
        )
    if "generator/spread" in values and values["generator/spread"] < ALIKE * values["critic/spread_real"]:
        result["generator"] = (
            f"the generator has collapsed: its images differ by {values['generator/spread']:.2g} where real ones"
            f" differ by {values['critic/spread_real']:.2g} - lower --learning-rate"
        )
    norm = values["encoder/z_hat_norm"] / math.sqrt(latent_size) if "encoder/z_hat_norm" in values else 1.0
    if not 1 / DRIFT < norm < DRIFT:
        result["encoder"] = (
            f"||z_hat|| drifts: {norm:.2g} sqrt(N_z), where latents have 1, so L_o loses its meaning"
            " - lower --learning-rate or raise --distance-weight"
        )
    return result
