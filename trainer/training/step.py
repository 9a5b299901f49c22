"""One step of a training run, whatever its method: what it is shown, its optimisers, and all that a restart needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data_tools.dataset.training_set import TrainingSet
from data_tools.errors import UserError
from trainer.contrast import FULL, Contrast
from trainer.networks.base import NetworkSet, copied
from trainer.schedule import Phase
from trainer.training import random
from trainer.training.batches import at_resolution, to_float, worker_positions
from trainer.training.device import uses_bf16
from trainer.training.group import Group, all_reduced
from trainer.training.health import FiniteWatch

if TYPE_CHECKING:
    from trainer.config import TrainConfig

MOMENTS = {
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("step", "square_avg"),
    torch.optim.SGD: ("momentum_buffer",),  # with momentum: without, it has no state
}
"""What a checkpoint holds of each parameter, by the optimisers that a step may use. Who uses another finds out when the
first checkpoint is due, not at a resume."""


class Step:
    """What all methods' steps share. A method sets up `optimisers` and `trained` in `begin`, and computes in `run`."""

    phase: Phase
    optimisers: dict[str, torch.optim.Optimizer]
    trained: list[nn.Parameter]
    contrast: Contrast = FULL  # the loop sets the run's before the first phase

    def __init__(
        self, config: TrainConfig, networks: NetworkSet, data: TrainingSet, device: torch.device, group: Group
    ) -> None:
        self.config, self.data, self.device, self.group = config, data, device, group
        self.latent_size = config.latent_size
        self.networks: NetworkSet = networks
        self.bf16 = uses_bf16(config, device)
        self.finite = FiniteWatch(device)
        self.shown = torch.zeros((), dtype=torch.int64, device=device)

    def begin(self, phase: Phase) -> None:
        """Set up for a phase, with optimisers whose moments start from zero."""
        raise NotImplementedError

    def run(self, images_seen: int) -> dict[str, Tensor]:
        """The step that begins at this count; returns the losses' parts, still on the device."""
        raise NotImplementedError

    def fingerprint(self) -> int:
        """48 bits that depend on which images and latents were shown at which positions since the last call, by anyone.

        Sums of integers: the same for any number of workers. Every worker of the group must call it.
        """
        total, self.shown = all_reduced(self.group, self.shown), torch.zeros_like(self.shown)
        return int(total) & (2**48 - 1)

    def check_finite(self, images_seen: int) -> None:
        """Check all that a checkpoint holds; raises NotFiniteError."""
        states = [tensor for name in self.optimisers for _, tensor in self._moments(name)]
        self.finite.check_all([*self.networks.parameters(), *states], images_seen)

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """Copies of the optimisers' states on the CPU, named by parameter."""
        return {name: copied(dict(self._moments(name))) for name in self.optimisers}

    def load_moments(self, read: Callable[[str], dict[str, Tensor]]) -> None:
        """Go on with the optimisers of a checkpoint within this phase, whose files `read` reads by name.

        ValueError when they do not fit.
        """
        names = {id(p): name for name, p in self._named()}
        for name, optimiser in self.optimisers.items():
            saved = read(name)
            for parameter in _learning(optimiser):
                where, state = names[id(parameter)], {}
                for kind in MOMENTS[type(optimiser)]:
                    tensor = saved.get(f"{where}.{kind}")
                    empty = torch.zeros((), device=self.device) if kind == "step" else torch.empty_like(parameter)
                    if tensor is None or tensor.shape != empty.shape:
                        raise ValueError(f"{name}.safetensors: lacks {kind} of {where}")
                    with torch.no_grad():
                        state[kind] = empty.copy_(tensor)  # laid out in memory as the parameter
                optimiser.state[parameter] = state

    def _moments(self, name: str) -> Iterator[tuple[str, Tensor]]:
        """UserError for an optimiser whose state `load_moments` would not bring back."""
        optimiser, names = self.optimisers[name], {id(p): name for name, p in self._named()}
        for parameter in _learning(optimiser):
            where, state = names[id(parameter)], optimiser.state[parameter]
            if not state or set(state) != set(MOMENTS.get(type(optimiser), ())):
                held = ", ".join(state) or "none"
                raise UserError(
                    f"optimiser {name}, {type(optimiser).__name__}: its state of {where} ({held}) would not come back"
                    " at a resume - choose among MOMENTS in trainer/training/step.py, or add it there"
                )
            for kind, tensor in state.items():
                yield f"{where}.{kind}", tensor

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, network in self.networks.by_name().items():
            for parameter_name, parameter in network.named_parameters():
                yield f"{name}.{parameter_name}", parameter

    def _places(self, images_seen: int) -> tuple[np.ndarray, Tensor]:
        """The positions of this worker's part of the batch that begins at a count, for data and for random numbers."""
        places = worker_positions(images_seen, self.phase.batch, self.group.rank, self.group.size)
        return places, torch.from_numpy(places).to(self.device)

    def _real(self, places: np.ndarray, positions: Tensor) -> Tensor:
        """Real images at the phase's resolution, as networks see them outside a fade: N x C x r x r."""
        return at_resolution(to_float(self._images(places, positions), self.contrast), self.phase.resolution)

    def _images(self, places: np.ndarray, positions: Tensor) -> Tensor:
        """Real images, uint8 N x H x W x C."""
        batch = torch.from_numpy(self.data.at(places)).to(self.device, non_blocking=True)
        self.shown += _fingerprint(positions, batch.view(len(batch), -1).view(torch.int64))  # eight pixels a word
        return batch

    def _latents(self, stream: int, positions: Tensor) -> Tensor:
        latents = random.latents(self.config.seed, stream, positions, self.latent_size)
        self.shown += _fingerprint(positions, latents.view(torch.int32))
        return latents

    def _drawn(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents for critic and generator, and mixing factors; see `random.drawn`."""
        z, again, u = random.drawn(self.config.seed, positions, self.latent_size)
        for latents in (z, again):
            self.shown += _fingerprint(positions, latents.view(torch.int32))
        return z, again, u

    def _reduced(self, loss: nn.Module) -> nn.Module:
        """The loss whose gradients are means over the group's workers."""
        if self.group.size == 1:
            return loss
        return DistributedDataParallel(loss, process_group=self.group.process_group, gradient_as_bucket_view=True)

    def share_buffers(self) -> None:
        """What batch norm has learned, from the first worker to the others: it is what a checkpoint holds."""
        if self.group.size > 1:
            for network in self.networks.by_name().values():
                for buffer in network.buffers():
                    dist.broadcast(buffer, src=0, group=self.group.process_group)

    @contextlib.contextmanager
    def _unchanged(self) -> Iterator[None]:
        """What passes within the block teach batch norm, and what they were shown, is forgotten at its end."""
        shown = self.shown.clone()
        before = {name: copied(dict(each.named_buffers())) for name, each in self.networks.by_name().items()}
        yield
        self.shown = shown
        for name, network in self.networks.by_name().items():
            for key, buffer in network.named_buffers():
                buffer.copy_(before[name][key])

    @staticmethod
    def _update(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def _learning(optimiser: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    return (parameter for group in optimiser.param_groups for parameter in group["params"])


def _fingerprint(positions: Tensor, values: Tensor) -> Tensor:
    """values: N x anything, of integers."""
    return ((2 * positions + 1) * values.sum(1, dtype=torch.int64)).sum()
