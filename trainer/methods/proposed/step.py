"""One step of the growing networks: critic, moving average of the generator, generator and encoder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.methods.proposed.losses import GeneratorEncoderLoss
from trainer.networks.progressive import Networks, SearchNetworks, used_parameters, wake
from trainer.private import lerp_all
from trainer.schedule import Phase
from trainer.training.batches import faded
from trainer.training.losses import CriticLoss
from trainer.training.step import Step
from trainer.training.timing import (
    CHECKS,
    CRITIC_BACKWARD,
    DATA,
    EMA,
    FAKES,
    GENERATOR_ENCODER,
    LATENTS,
    OPTIMISER,
    part,
)

BACKEND = "inductor"
"""What compiles."""
Where = tuple[int, Tensor | None]
"""Resolution and alpha."""
Losses = tuple[Tensor, dict[str, Tensor]]


class GrowingStep(Step):
    """One update of critic, moving average, generator and encoder, if there is one."""

    networks: Networks | SearchNetworks

    def begin(self, phase: Phase) -> None:
        """Wake the layers of this phase, and start reduction and Adam's moments again."""
        n, c = self.networks, self.config
        self.phase = phase
        if c.compile:
            torch.compiler.reset()  # the graphs of the phase before, of which only so many may be kept
        awake = {
            name: wake(network, phase.resolution, phase.fading)
            for name, network in n.by_name().items()
            if name != "ema"
        }
        critic = awake.pop("critic")
        learners = [parameter for network in awake.values() for parameter in network]
        self.generator_values = tuple(p.detach() for p in awake["generator"])
        self.ema_parameters = tuple(used_parameters(n.ema, phase.resolution, phase.fading))
        self.critic_loss = self._reduced(self._compiled(CriticLoss(n.critic, c.penalty, c.drift, self.bf16)))
        self.generator_loss = self._reduced(self._compiled(self.generator_objective()))
        # Adam works element by element, so one optimiser serves generator and encoder, joint or not.
        self.optimisers = {"critic_adam": self._adam(critic), "generator_adam": self._adam(learners)}
        self.rates = {"critic_adam": 1.0, "generator_adam": c.generator_rate}  # multiples of the phase's
        self.trained = [*critic, *learners]
        if self.group.size > 1:
            self._settle_reduction()

    def run(self, images_seen: int) -> dict[str, Tensor]:
        c, phase = self.config, self.phase
        alpha = torch.tensor(phase.alpha(images_seen), device=self.device) if phase.fading else None
        where = (phase.resolution, alpha)
        with part(DATA):
            places, positions = self._places(images_seen)
            real = faded(self._real(places, positions), alpha)
        with part(LATENTS):
            z, again, u = self._drawn(positions)
        for name, adam in self.optimisers.items():
            adam.param_groups[0]["lr"] = self.rates[name] * phase.rate(images_seen)
        critic_parts = self._descend("critic_adam", self.critic_loss, self._critic_pass, (real, z, u), where)
        with part(EMA):
            lerp_all(self.ema_parameters, self.generator_values, 1 - c.ema_decay)
        generator_parts = self._descend("generator_adam", self.generator_loss, self._generator_pass, (again,), where)
        with part(CHECKS):
            self.finite.look(self.trained, images_seen)
        return critic_parts | generator_parts

    def _critic_pass(self, real: Tensor, z: Tensor, u: Tensor, resolution: int, alpha: Tensor | None) -> Losses:
        with part(FAKES), torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            fake = self.networks.generator(z, resolution, alpha)
        return self.critic_loss(real, fake, u, resolution, alpha)

    def _generator_pass(self, z: Tensor, resolution: int, alpha: Tensor | None) -> Losses:
        with part(GENERATOR_ENCODER):
            return self.generator_loss(z, resolution, alpha)

    def _descend(
        self, name: str, objective: nn.Module, forward: Callable[..., Losses], inputs: tuple[Tensor, ...], where: Where
    ) -> dict[str, Tensor]:
        """One update. In several passes its gradient is their mean, each weighted by its images; so are the parts."""
        optimiser, passes = self.optimisers[name], self._passes(inputs)
        optimiser.zero_grad(set_to_none=True)
        seen: list[tuple[float, dict[str, Tensor]]] = []
        for number, some in enumerate(passes, 1):
            weight = len(some[0]) / len(inputs[0])
            with _unreduced(objective) if number < len(passes) else contextlib.nullcontext():
                loss, parts = forward(*some, *where)
                with part(CRITIC_BACKWARD if objective is self.critic_loss else GENERATOR_ENCODER):
                    (loss * weight).backward()
            seen.append((weight, parts))
        with part(OPTIMISER):
            optimiser.step()
        if len(seen) == 1:
            return seen[0][1]
        return {key: torch.stack([weight * parts[key] for weight, parts in seen]).sum() for key in seen[0][1]}

    def _passes(self, inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
        """The batch in parts of --microbatch images, whole minibatch-stddev groups each."""
        return list(zip(*(tensor.split(self.config.microbatch or len(tensor)) for tensor in inputs)))

    def _compiled(self, objective: nn.Module) -> nn.Module:
        """The objective as it is, or with --compile as one graph a phase, whose shapes do not change."""
        if not self.config.compile:
            return objective
        return torch.compile(objective, backend=BACKEND, dynamic=False, fullgraph=True)  # type: ignore[return-value]

    def generator_objective(self) -> nn.Module:
        """What the generator minimises, and whatever else is trained with it."""
        n, c = self.networks, self.config
        assert isinstance(n, Networks)
        return GeneratorEncoderLoss(
            n.generator, n.encoder, n.critic, c.distance, c.coupling, c.distance_weight, self.bf16
        )

    def _settle_reduction(self) -> None:
        """A pass that leaves nothing behind: after its first one DDP lays its buckets out again.

        The order of summation must not depend on whether a run was interrupted.
        """
        phase, device = self.phase, self.device
        alpha = torch.tensor(1.0, device=device) if phase.fading else None
        share = phase.batch // self.group.size
        share = min(self.config.microbatch or share, share)
        channels = self.networks.generator.to_rgb["4"].bias.numel()  # type: ignore[union-attr]
        images = torch.zeros(share, channels, phase.resolution, phase.resolution, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        u = torch.zeros(share, 1, 1, 1, device=device)
        self.critic_loss(images, images, u, phase.resolution, alpha)[0].backward()
        z = torch.zeros(share, self.config.width, device=device)
        self.generator_loss(z, phase.resolution, alpha)[0].backward()
        for adam in self.optimisers.values():
            adam.zero_grad(set_to_none=True)

    def _adam(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.phase.learning_rate, betas=(0.0, 0.99), eps=1e-8, fused=True)


def _unreduced(objective: nn.Module) -> AbstractContextManager[None]:
    """While the block lasts, gradients are summed up on this worker alone."""
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) else contextlib.nullcontext()
