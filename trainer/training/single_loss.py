"""The step of methods that minimise one loss with one optimiser, on one batch of real images a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.methods import method_of
from trainer.schedule import Phase
from trainer.training.step import Step


class SingleLossStep(Step):
    """A method says what it minimises in a phase, and may say what a batch is and what it is minimised by."""

    def objective(self, phase: Phase) -> nn.Module:
        """The loss as a module that has what learns: called with `inputs`, returns the loss and its parts."""
        raise NotImplementedError

    def inputs(self, images_seen: int) -> tuple[Tensor, ...]:
        """What the objective takes at this count: here this worker's real images, N x C x r x r."""
        return (self._real(*self._places(images_seen)),)

    def optimiser(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Adam, whose step size is the phase's, with the method's weight decay."""
        options: Any = method_of(self.config)
        return torch.optim.Adam(parameters, weight_decay=options.weight_decay, fused=True)

    def begin(self, phase: Phase) -> None:
        self.phase = phase
        self.share_buffers()
        objective = self.objective(phase)
        for network in self.networks.by_name().values():
            network.requires_grad_(False).eval()
        objective.requires_grad_(True).train()
        self.trained = list(objective.parameters())
        self.loss = self._reduced(objective)
        self.optimisers = {"adam": self.optimiser(self.trained)}
        if self.group.size > 1:
            self._settle_reduction()

    def run(self, images_seen: int) -> dict[str, Tensor]:
        adam = self.optimisers["adam"]
        adam.param_groups[0]["lr"] = self.phase.rate(images_seen)
        loss, parts = self.loss(*self.inputs(images_seen))
        self._update(adam, loss)
        self.finite.look(self.trained, images_seen)
        return parts

    def _settle_reduction(self) -> None:
        """A pass that leaves nothing behind: after its first one DDP lays its buckets out again; see `GrowingStep`."""
        with self._unchanged():
            self.loss(*self.inputs(self.phase.start))[0].backward()
        self.optimisers["adam"].zero_grad(set_to_none=True)
