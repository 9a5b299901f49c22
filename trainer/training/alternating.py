"""The step of methods whose networks learn in turns: several losses on one batch, each with an optimiser of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from trainer.schedule import Phase
from trainer.training.step import Step


@dataclass(frozen=True)
class Batch:
    """This worker's part of a batch: positions, as numbers and on the device, and real images N x C x r x r."""

    places: np.ndarray
    positions: Tensor
    real: Tensor


Optimiser = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Update:
    """One turn. objective: a loss as a module that has all that learns in this turn, and nothing else as a submodule.

    name: of the optimiser, which is its file's; turns of one name share it. optimiser: of the objective's parameters.
    inputs: of a batch, what the objective takes. batch: which one of the step's, of `Phase.critic_steps`.
    """

    name: str
    objective: nn.Module
    inputs: Callable[[Batch], tuple[Tensor, ...]]
    optimiser: Optimiser
    batch: int = 0


def adversarial_adam(rate: float) -> Optimiser:
    """Adam as DCGAN has it (Radford et al. 2016), of parameters to be named."""
    return lambda parameters: torch.optim.Adam(parameters, lr=rate, betas=(0.5, 0.999), fused=True)


def adam(rate: float) -> Optimiser:
    """Adam as it is, of parameters to be named."""
    return lambda parameters: torch.optim.Adam(parameters, lr=rate, fused=True)


class AlternatingStep(Step):
    """A method says what its turns are."""

    def updates(self, phase: Phase) -> list[Update]:
        """In their order."""
        raise NotImplementedError

    def finish(self) -> None:
        """What is done after the last turn of a step."""

    def begin(self, phase: Phase) -> None:
        self.phase = phase
        self.share_buffers()
        for network in self.networks.by_name().values():
            network.requires_grad_(True).train()
        self.turns = [(update, self._reduced(update.objective)) for update in self.updates(phase)]
        self.optimisers = dict[str, torch.optim.Optimizer]()
        for update, _ in self.turns:
            if update.name not in self.optimisers:
                self.optimisers[update.name] = update.optimiser(list(update.objective.parameters()))
        learning = [p for each in self.optimisers.values() for p in each.param_groups[0]["params"]]
        self.trained = list({id(p): p for p in learning}.values())
        if self.group.size > 1:
            self._settle_reduction()

    def run(self, images_seen: int) -> dict[str, Tensor]:
        phase, parts = self.phase, dict[str, Tensor]()
        batches = [self._batch(images_seen + number * phase.batch) for number in range(phase.critic_steps)]
        for update, objective in self.turns:
            loss, own = objective(*update.inputs(batches[update.batch]))
            self._update(self.optimisers[update.name], loss)
            parts |= own
        self.finish()
        self.finite.look(self.trained, images_seen)
        return parts

    def _batch(self, images_seen: int) -> Batch:
        places, positions = self._places(images_seen)
        return Batch(places, positions, self._real(places, positions))

    def _settle_reduction(self) -> None:
        """A pass that leaves nothing behind: after its first one DDP lays its buckets out again; see `GrowingStep`."""
        with self._unchanged():
            batch = self._batch(self.phase.start)
            for update, objective in self.turns:
                objective(*update.inputs(batch))[0].backward()
                self.optimisers[update.name].zero_grad(set_to_none=True)
