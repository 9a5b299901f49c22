"""The training loop: one process, plain torch.distributed, knows nothing of Ray.

A step shows the critic one global batch (then the generator's moving average follows the generator), then updates
generator and encoder. What a step computes is a function of (config, data, images_seen); see growth.py, batches.py
and counter_random.py.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data_tools.cache import open_cache
from data_tools.reader import Dataset, open_dataset
from data_tools.training_set import TrainingSet, training_set
from trainer import counter_random
from trainer.batches import at_resolution, faded, to_float, worker_positions
from trainer.checkpoint import Networks, has_checkpoint, latest_checkpoint, load_weights, read_info, save_checkpoint
from trainer.config import TrainConfig
from trainer.detector import AnomalyDetector, best_device
from trainer.evaluation import has_labels, score_table, summary
from trainer.growth import Phase, schedule
from trainer.monitor import Monitor, RunningMeans
from trainer.networks import used_parameters, wake
from trainer.objectives import CriticLoss, GeneratorEncoderLoss

Report = Callable[[dict[str, float]], None]


def train(config: TrainConfig, report: Report = lambda values: None) -> None:
    """Train from the newest checkpoint in the run folder, or from the start, to the end of the schedule.

    Every worker of a torch.distributed group calls this with the same config; `report` gets each line of metrics.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    run, device = Path(config.out), best_device()
    dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
    phases = schedule(config)
    networks = Networks.build(config.resolution, dataset.channels, config.width, config.seed).to(device)
    images_seen = _resume(run, networks)
    data = training_set(dataset, config.gamma, config.seed, config.window)
    step = Step(config, networks, data, device, rank, world)
    monitor = Monitor(run, phases, images_seen) if rank == 0 else None
    if monitor:
        monitor.say(f"{'bf16 autocast' if step.bf16 else 'float32'} on {device}, {world} worker(s)")
    with contextlib.closing(monitor) if monitor else contextlib.nullcontext():
        for phase in phases:
            if images_seen < phase.end:
                images_seen = _train_phase(phase, images_seen, config, step, dataset, networks, monitor, report)
                _check_workers_agree(networks, images_seen, world)
                if rank == 0:
                    save_checkpoint(
                        run,
                        networks,
                        config,
                        images_seen,
                        phase.resolution,
                        None,
                        dataset.channels,
                        dataset.manifest.digest,
                    )


def _train_phase(
    phase: Phase,
    images_seen: int,
    config: TrainConfig,
    step: Step,
    dataset: Dataset,
    networks: Networks,
    monitor: Monitor | None,
    report: Report,
) -> int:
    """Run one phase to its end; return the images seen then (the last step may pass the end by part of a batch)."""
    step.begin(phase)
    means, since, clock = RunningMeans(), images_seen, time.monotonic()
    next_log = images_seen + config.log_images
    marks = iter(np.linspace(phase.start, phase.end, config.snapshots + 1)[1:])
    next_snapshot = next(m for m in marks if m > images_seen)
    while images_seen < phase.end:
        means.add(step.run(images_seen))
        images_seen += phase.batch
        last = images_seen >= phase.end
        if images_seen >= next_log or last:
            values = means.read(step.world)
            seconds = time.monotonic() - clock
            values |= {
                "growth/resolution": phase.resolution,
                "growth/alpha": phase.alpha(images_seen),
                "speed/images_per_sec": (images_seen - since) / seconds,
                "speed/sec_per_kimg": seconds / (images_seen - since) * 1000,
            }
            if monitor:
                monitor.metrics(images_seen, values)
                monitor.progress(images_seen, phase, values)
            report({"images_seen": images_seen, **values})
            since, next_log = images_seen, images_seen + config.log_images
        if images_seen >= next_snapshot or last:
            if monitor:
                _snapshot(monitor, phase, images_seen, networks, dataset, config, step)
            next_snapshot = next(marks, float("inf"))
        if since == images_seen:
            clock = time.monotonic()  # pictures and validation do not count as training time
    return images_seen


class Step:
    """One update of critic, moving average, generator and encoder; set up anew for each phase."""

    def __init__(
        self, config: TrainConfig, networks: Networks, data: TrainingSet, device: torch.device, rank: int, world: int
    ) -> None:
        self.config, self.networks, self.data, self.device = config, networks, data, device
        self.rank, self.world = rank, world
        self.shown = data.at(np.arange(min(32, len(data)))) if rank == 0 else None
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and has_native_bf16(device))

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
        self.critic_adam = self._adam(critic)
        # Adam works element by element, so one optimiser serves generator and encoder, joint or not.
        self.generator_adam = self._adam(generator + encoder)

    def run(self, images_seen: int) -> dict[str, Tensor]:
        """The step that begins at this count; returns the losses' parts, still on the device."""
        c, phase = self.config, self.phase
        places = worker_positions(images_seen, phase.batch, self.rank, self.world)
        positions = torch.from_numpy(places).to(self.device)
        alpha = torch.tensor(phase.alpha(images_seen), device=self.device) if phase.fading else None
        batch = torch.from_numpy(self.data.at(places)).to(self.device, non_blocking=True)
        real = faded(at_resolution(to_float(batch), phase.resolution), alpha)

        def z(stream: int) -> Tensor:
            return counter_random.latents(c.seed, stream, positions, c.width)

        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            fake = self.networks.generator(z(counter_random.LATENT_FOR_CRITIC), phase.resolution, alpha)
        u = counter_random.mixing(c.seed, positions)
        loss, critic_parts = self.critic_loss(real, fake, u, phase.resolution, alpha)
        self._update(self.critic_adam, loss)
        torch._foreach_lerp_(self.ema_parameters, self.generator_values, 1 - c.ema_decay)  # type: ignore[reportPrivateImportUsage]

        latents = z(counter_random.LATENT_FOR_GENERATOR)
        loss, generator_parts = self.generator_loss(latents, phase.resolution, alpha)
        self._update(self.generator_adam, loss)
        return critic_parts | generator_parts

    def _reduced(self, loss: nn.Module) -> nn.Module:
        return DistributedDataParallel(loss, gradient_as_bucket_view=True) if self.world > 1 else loss

    def _adam(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.phase.learning_rate, betas=(0.0, 0.99), eps=1e-8, fused=True)

    @staticmethod
    def _update(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed by the hardware; emulated, it is tens of times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def _resume(run: Path, networks: Networks) -> int:
    """Load the newest checkpoint of the run, if there is one; return its images seen."""
    if not has_checkpoint(run):
        return 0
    info = read_info(latest_checkpoint(run))
    load_weights(info, networks.by_name())
    return info.images_seen


def fingerprint(networks: Networks) -> int:
    """A 63-bit hash over the bits of every weight, for comparing workers."""
    total = 0
    for network in networks.by_name().values():
        for parameter in network.parameters():
            words = parameter.detach().contiguous().view(torch.int32).flatten().long()
            odd = torch.arange(1, 2 * len(words), 2, device=words.device)
            total = (total * 1_000_003 + int((words * odd).sum().item())) % (2**63 - 1)
    return total


def _check_workers_agree(networks: Networks, images_seen: int, world: int) -> None:
    """Stop when the workers' weights or counts differ: a silent divergence would spoil the run."""
    if world == 1:
        return
    mine = torch.tensor([images_seen, fingerprint(networks)])
    if torch.cuda.is_available():
        mine = mine.cuda()
    all_of_them = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(all_of_them, mine)
    differing = [rank for rank, other in enumerate(all_of_them) if not torch.equal(other, all_of_them[0])]
    if differing:
        raise RuntimeError(f"workers {differing} differ from worker 0 in their weights after {images_seen} images")


def _snapshot(
    monitor: Monitor,
    phase: Phase,
    images_seen: int,
    networks: Networks,
    dataset: Dataset,
    config: TrainConfig,
    step: Step,
) -> None:
    """Pictures of real, generated and reconstructed images, and validation AUCs where labels exist."""
    alpha = phase.alpha(images_seen) if phase.fading else None
    detector = AnomalyDetector(networks.ema, networks.encoder, phase.resolution, dataset.channels, alpha, step.device)
    shown = step.shown
    assert shown is not None, "pictures are the first worker's"
    z = counter_random.latents(config.seed, counter_random.LATENT_FOR_GENERATOR, torch.arange(32), config.width)
    with torch.no_grad():
        real = faded(at_resolution(to_float(torch.from_numpy(shown).to(step.device)), phase.resolution), detector.alpha)
        generated = networks.ema(z.to(step.device), phase.resolution, detector.alpha)
    monitor.pictures(
        images_seen,
        {
            "real": real.permute(0, 2, 3, 1).cpu().numpy(),
            "generated": generated.permute(0, 2, 3, 1).cpu().numpy(),
            "reconstructed": detector.reconstruct(shown),
        },
    )
    if has_labels(dataset):
        table = score_table(detector, dataset)
        values = summary(table.scores, table.labels)
        monitor.metrics(images_seen, {f"validation/{name}": value for name, value in values.items()})
