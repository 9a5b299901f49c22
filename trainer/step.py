"""One step: the critic sees a global batch, the moving average follows, generator and encoder learn together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data_tools.training_set import TrainingSet
from trainer import counter_random
from trainer.batches import at_resolution, faded, to_float, worker_positions
from trainer.checkpoint import REMEDY, CheckpointInfo, DamagedError, copied, read_tensors
from trainer.config import TrainConfig
from trainer.group import Group, sum_of
from trainer.growth import Phase
from trainer.health import FiniteWatch
from trainer.networks import Networks, used_parameters, wake
from trainer.objectives import CriticLoss, GeneratorEncoderLoss

ADAMS = ("critic_adam", "generator_adam")


class Step:
    """One update of critic, moving average, generator and encoder; set up anew for each phase."""

    def __init__(
        self, config: TrainConfig, networks: Networks, data: TrainingSet, device: torch.device, group: Group
    ) -> None:
        self.config, self.networks, self.data, self.device, self.group = config, networks, data, device, group
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and has_native_bf16(device))
        self.finite = FiniteWatch(device)
        self.shown = torch.zeros((), dtype=torch.int64, device=device)

    def begin(self, phase: Phase) -> None:
        """Wake the layers of this phase, and start reduction and Adam's moments anew."""
        n, c = self.networks, self.config
        self.phase = phase
        critic, encoder, generator = (
            wake(network, phase.resolution, phase.fading) for network in (n.critic, n.encoder, n.generator)
        )
        self.generator_values = tuple(p.detach() for p in generator)
        self.ema_parameters = tuple(used_parameters(n.ema, phase.resolution, phase.fading))
        self.critic_loss = self._reduced(CriticLoss(n.critic, c.penalty, c.drift, self.bf16))
        joint = GeneratorEncoderLoss(
            n.generator, n.encoder, n.critic, c.distance, c.coupling, c.distance_weight, self.bf16
        )
        self.generator_loss = self._reduced(joint)
        # Adam works element by element, so one optimiser serves generator and encoder, joint or not.
        self.adams = {"critic_adam": self._adam(critic), "generator_adam": self._adam(generator + encoder)}
        self.trained = [*critic, *generator, *encoder]
        if self.group.size > 1:
            self._settle_reduction()

    def run(self, images_seen: int) -> dict[str, Tensor]:
        """The step that begins at this count; returns the losses' parts, still on the device."""
        c, phase = self.config, self.phase
        places = worker_positions(images_seen, phase.batch, self.group.rank, self.group.size)
        positions = torch.from_numpy(places).to(self.device)
        alpha = torch.tensor(phase.alpha(images_seen), device=self.device) if phase.fading else None
        batch = torch.from_numpy(self.data.at(places)).to(self.device, non_blocking=True)
        real = faded(at_resolution(to_float(batch), phase.resolution), alpha)

        def z(stream: int) -> Tensor:
            latents = counter_random.latents(c.seed, stream, positions, c.width)
            self.shown += _fingerprint(positions, latents.view(torch.int32))
            return latents

        self.shown += _fingerprint(positions, batch)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            fake = self.networks.generator(z(counter_random.LATENT_FOR_CRITIC), phase.resolution, alpha)
        u = counter_random.mixing(c.seed, positions)
        loss, critic_parts = self.critic_loss(real, fake, u, phase.resolution, alpha)
        self._update(self.adams["critic_adam"], loss)
        torch._foreach_lerp_(self.ema_parameters, self.generator_values, 1 - c.ema_decay)  # type: ignore[reportPrivateImportUsage]

        latents = z(counter_random.LATENT_FOR_GENERATOR)
        loss, generator_parts = self.generator_loss(latents, phase.resolution, alpha)
        self._update(self.adams["generator_adam"], loss)
        self.finite.look(self.trained, images_seen)
        return critic_parts | generator_parts

    def fingerprint(self) -> int:
        """48 bits that depend on which images and latents were shown at which positions since the last call, by anyone.

        Sums of whole numbers: the same for any number of workers. Every worker of the group must call it.
        """
        total, self.shown = sum_of(self.group, self.shown), torch.zeros_like(self.shown)
        return int(total) & (2**48 - 1)

    def check_finite(self, images_seen: int) -> None:
        """Check all that a checkpoint holds; raises NotFiniteError."""
        states = [tensor for adam in self.adams.values() for state in adam.state.values() for tensor in state.values()]
        self.finite.check_all([*self.networks.parameters(), *states], images_seen)

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """Copies of both optimisers' states on the CPU, named by parameter."""
        return {name: copied(dict(self._moments(self.adams[name]))) for name in ADAMS}

    def load_moments(self, info: CheckpointInfo) -> None:
        """Go on with the optimisers of a checkpoint within this phase; DamagedError when they do not fit."""
        for name in ADAMS:
            saved, adam = read_tensors(info, name), self.adams[name]
            names = {id(p): each for each, p in self._named()}
            for parameter in adam.param_groups[0]["params"]:
                where = names[id(parameter)]
                state = {
                    "step": torch.zeros((), device=self.device),
                    "exp_avg": torch.empty_like(parameter),  # laid out in memory as the parameter
                    "exp_avg_sq": torch.empty_like(parameter),
                }
                for kind, tensor in state.items():
                    found = saved.get(f"{where}.{kind}")
                    if found is None or found.shape != tensor.shape:
                        raise DamagedError(f"{info.url}/{name}.safetensors: lacks {kind} of {where} - {REMEDY}")
                    with torch.no_grad():
                        tensor.copy_(found)
                adam.state[parameter] = state

    def _moments(self, adam: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
        names = {id(p): name for name, p in self._named()}
        for parameter, state in adam.state.items():
            for kind, tensor in state.items():
                yield f"{names[id(parameter)]}.{kind}", tensor

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, network in self.networks.by_name().items():
            for parameter_name, parameter in network.named_parameters():
                yield f"{name}.{parameter_name}", parameter

    def _settle_reduction(self) -> None:
        """A pass that leaves nothing behind: after its first one DDP lays its buckets out anew.

        The order of summation must not depend on whether a run was interrupted.
        """
        phase, device = self.phase, self.device
        alpha = torch.tensor(1.0, device=device) if phase.fading else None
        share = phase.batch // self.group.size
        channels = self.networks.generator.to_rgb["4"].bias.numel()  # type: ignore[union-attr]
        images = torch.zeros(share, channels, phase.resolution, phase.resolution, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        u = torch.zeros(share, 1, 1, 1, device=device)
        self.critic_loss(images, images, u, phase.resolution, alpha)[0].backward()
        z = torch.zeros(share, self.config.width, device=device)
        self.generator_loss(z, phase.resolution, alpha)[0].backward()
        for adam in self.adams.values():
            adam.zero_grad(set_to_none=True)

    def _reduced(self, loss: nn.Module) -> nn.Module:
        if self.group.size == 1:
            return loss
        return DistributedDataParallel(loss, process_group=self.group.process_group, gradient_as_bucket_view=True)

    def _adam(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.phase.learning_rate, betas=(0.0, 0.99), eps=1e-8, fused=True)

    @staticmethod
    def _update(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def _fingerprint(positions: Tensor, values: Tensor) -> Tensor:
    return ((2 * positions + 1) * values.flatten(1).sum(1, dtype=torch.int64)).sum()


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed by the hardware; emulated, it is tens of times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
