"""What the first worker does besides training: lines of metrics, pictures, checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data_tools.dataset.reader import Dataset
from data_tools.dataset.training_set import TrainingSet
from data_tools.storage import StillOurs
from trainer.config import TrainConfig
from trainer.methods import method_of
from trainer.run.checkpoint import Snapshot
from trainer.run.monitor import Monitor
from trainer.run.recoveries import Recoveries
from trainer.run.resume import Start
from trainer.run.saving import PROBES, Saver
from trainer.schedule import Phase
from trainer.scoring.inference import Inference
from trainer.training import random
from trainer.training.health import losing_warning, warnings
from trainer.training.step import Step
from trainer.training.vitals import Vitals, vitals

SHOWN = 32
"""Images in a picture."""


@dataclass(frozen=True)
class FirstWorker:
    """Of one training run; shown: training images for pictures, uint8 N x H x W x C."""

    config: TrainConfig
    dataset: Dataset
    monitor: Monitor
    saver: Saver
    shown: np.ndarray
    recoveries: Recoveries

    def introduce(self, step: Step, start: Start, trouble: str) -> None:
        """Say what begins, where and in which precision, and what happened before."""
        for line in [trouble, *start.notes]:
            if line:
                self.monitor.say(line)
        if self.recoveries.past and start.images_seen == self.recoveries.past[-1].back_to:
            last = self.recoveries.past[-1]
            self.monitor.once(
                start.images_seen,
                f"warning/recovery {len(self.recoveries.past)}",
                f"{last.why}, at {last.at:,} images: back at {last.back_to:,} with learning rates times"
                f" {self.recoveries.rate:g}",
            )
        world_size, size = step.group.world_size, step.group.size
        idle = f", {world_size - size} standing by since the batches do not divide among {world_size}"
        numbers = f"{precision_taken(step)}, {'compiled' if step.config.compile else 'eager'}"
        self.monitor.say(
            f"{numbers} on {step.device}, {size} worker(s){idle if world_size > size else ''},"
            f" from {start.images_seen:,} images"
        )

    def log(self, images_seen: int, phase: Phase, values: dict[str, float]) -> dict[str, float]:
        """A line of metrics, one of progress, warnings; returns what is known of the last validated phase."""
        self.monitor.metrics(images_seen, values)
        self.monitor.progress(images_seen, phase, values)
        for kind, warning in warnings(values, self.config.latent_size).items():
            self.monitor.warn(images_seen, phase, kind, warning)
        is_learned = self.config.contrast == "learned"
        if images_seen >= phase.end and (warning := losing_warning(self.monitor.kept, phase, is_learned)):
            self.monitor.warn(images_seen, phase, "losing", warning)
        return self.monitor.phase_validated(self.saver.best_by) if self.saver.labelled else {}

    def save(self, step: Step, phase: Phase, images_seen: int, must: bool, ailing: int) -> None:
        """Hand a copy of all that the next step depends on to the thread that saves."""
        snapshot = snapshot_of(self.config, self.dataset, step, phase, images_seen)
        past = len(self.recoveries.past)
        self.saver.save(dataclasses.replace(snapshot, ailing=ailing, recoveries=past), must)

    def examine(self, step: Step, phase: Phase, images_seen: int) -> Vitals:
        """Whether the training is alive."""
        with step.networks.evaluating():
            return vitals(self._inference(step, phase, images_seen), self.shown)

    def _inference(self, step: Step, phase: Phase, images_seen: int) -> Inference:
        alpha = phase.alpha(images_seen) if phase.fading else None
        about = (phase.resolution, self.dataset.channels, alpha, step.device)
        return Inference(self.config, step.networks.by_name(), *about, contrast=step.contrast)

    def draw(self, step: Step, phase: Phase, images_seen: int) -> None:
        """Real images, and generated and reconstructed ones where the method has them."""
        config, networks, method = self.config, step.networks, method_of(self.config)
        inference = self._inference(step, phase, images_seen)
        with torch.no_grad(), networks.evaluating():
            rows = {"real": next(inference.batches(self.shown, SHOWN))}
            if "generate" in method.offers():
                places = torch.arange(SHOWN)
                z = random.latents(config.seed, random.LATENT_FOR_GENERATOR, places, config.latent_size)
                rows["generated"] = method.generate(inference.trained, z.to(step.device))
            grids = {name: images.permute(0, 2, 3, 1).cpu().numpy() for name, images in rows.items()}
            if inference.reconstructs and method.ready(config, images_seen):
                grids["reconstructed"] = inference.reconstruct(self.shown)
        self.monitor.pictures(images_seen, grids)


@contextlib.contextmanager
def first_worker(
    config: TrainConfig,
    dataset: Dataset,
    data: TrainingSet,
    start: Start,
    log: Callable[[str], None],
    still_ours: StillOurs,
    unsettled: Snapshot | None,
) -> Iterator[FirstWorker]:
    """Opens the run's logs and the thread that saves, and closes both at the end of the block.

    still_ours, unsettled: as of `Saver`.
    """
    with contextlib.ExitStack() as stack:
        monitor = Monitor(config.out, config.schedule(), start.images_seen, log, still_ours)
        stack.callback(monitor.close)
        first = data.at(np.arange(min(max(SHOWN, PROBES), len(data))))
        saver = Saver(config, dataset, first[:PROBES], monitor, still_ours, unsettled)
        stack.callback(saver.abandon)
        shown = first[:SHOWN]
        yield FirstWorker(config, dataset, monitor, saver, shown, start.recoveries)


def precision_taken(step: Step) -> str:
    """What networks compute in, and why."""
    asked = "" if step.config.precision == "auto" else " as asked"
    if step.bf16:
        return f"bf16 autocast{asked or ', which this device computes natively'}"
    return f"float32{asked or ', since this device has no native bf16'}"


def snapshot_of(config: TrainConfig, dataset: Dataset, step: Step, phase: Phase, images_seen: int) -> Snapshot:
    """Everything that the next step depends on; at a phase's end the optimisers' moments are no part of that."""
    over = images_seen >= phase.end
    files = step.networks.weights() | ({} if over else step.moments())
    alpha = phase.alpha(images_seen) if phase.fading and not over else None
    manifest = dataset.manifest
    about = (manifest.channels, manifest.digest, config, files, manifest.intensity, step.contrast)
    return Snapshot(images_seen, phase.resolution, alpha, *about)
