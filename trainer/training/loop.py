"""The training loop: one process of possibly many, plain torch.distributed, knows nothing of Ray.

What a step computes is a function of (config, data, images_seen); see growth.py, batches.py and counter_random.py. So
all that a run carries from step to step is in its checkpoints, and what it says and when is decided by images_seen.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.errors import UserError
from trainer.config import TrainConfig
from trainer.methods.table import build_networks, build_step, can_score
from trainer.run.checkpoint import Snapshot, weights_of
from trainer.run.folder import mark_finished, run_images
from trainer.run.monitor import Monitor
from trainer.run.resume import Start, find_start, load_start, sole_trainer, unsettled
from trainer.run.saving import Saver
from trainer.schedule import Phase, schedule
from trainer.scoring.inference import AnomalyDetector, best_device
from trainer.training import random as counter_random
from trainer.training.batches import at_resolution, faded, to_float
from trainer.training.group import (
    Group,
    check_agreement,
    check_in,
    form_group,
    told_by_first,
    trouble_named,
    wait_for_all,
)
from trainer.training.health import NotFiniteError, warnings
from trainer.training.means import RunningMeans
from trainer.training.step import Step

ASKED_EVERY = 32
"""Steps between two questions whether a machine is about to go: they cost a round of messages."""


@dataclass(frozen=True)
class Surroundings:
    """What the loop asks of and tells to whatever runs it. Workers of a group are asked the same number of times."""

    report: Callable[[dict[str, float]], None] = lambda values: None  # each line of metrics
    hear: Callable[[str], None] = field(default=lambda line: print(line, flush=True))  # the first worker's lines
    begun: Callable[[int], None] = lambda images_seen: None  # where training starts or goes on
    ending_soon: Callable[[], bool] = lambda: False  # whether this machine is about to be taken away
    stopped: Callable[[], bool] = lambda: False  # whether to save and leave
    node: str = "this machine"


def train(config: TrainConfig, around: Surroundings | None = None) -> None:
    """Train from the newest checkpoint of the run, or from the start, to the end of the schedule.

    Every worker of a torch.distributed group calls this with the same config. When weights become infinite or no
    numbers, all go back to the newest checkpoint once; the second time it is a UserError.
    """
    around = around or Surroundings()
    try:
        _train(config, around)
    except NotFiniteError as error:
        trouble = f"warning: {error}; going back to the newest checkpoint"
    else:
        return
    try:
        _train(config, around, trouble)
    except NotFiniteError as error:
        raise UserError(
            f"{config.out}: {error}, again after going back to the newest checkpoint"
            " - lower --learning-rate or give --precision float32, in another --out --from this one"
        ) from None


def _train(config: TrainConfig, around: Surroundings, trouble: str = "") -> None:
    torch.backends.cudnn.deterministic = True  # a run that was interrupted must end as one that was not
    device, phases = best_device(), schedule(config)
    group = form_group({phase.batch for phase in phases}, config.patience, around.node)
    first = group.rank == 0
    with contextlib.ExitStack() as stack:
        still_ours = stack.enter_context(sole_trainer(config.out)) if first else None
        start = told_by_first(group, find_start(config) if first else None)
        dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
        networks = build_networks(config, dataset.channels).to(device)
        load_start(start, networks, dataset.channels)
        data = run_images(config.out, config, dataset)
        step = build_step(config, networks, data, device, group)
        wait_for_all(group)
        logs: Logs | None = None
        if still_ours:
            monitor = Monitor(config.out, phases, start.images_seen, around.hear)
            stack.callback(monitor.close)
            saver = Saver(config, dataset, monitor, still_ours, unsettled(start, config.out, networks))
            stack.callback(saver.abandon)
            shown = data.at(np.arange(min(32, len(data))))
            logs = Logs(monitor, saver, shown)
            _introduce(monitor, start, step, group, trouble)
        around.begun(start.images_seen)
        run = Run(config, dataset, step, logs, around)
        try:
            with trouble_named(group, config.patience):
                finished = _all_phases(run, phases, start)
        except NotFiniteError as error:
            if not group.stands_by:
                check_in(group, error.images_seen)
            if logs:
                logs.saver.finish()  # what waits is good, and is what all go back to
            raise
        if logs:
            logs.saver.finish()
            if finished:
                mark_finished(config.out)
            else:
                logs.monitor.say("stopped; the same command goes on from here")


@dataclass(frozen=True)
class Logs:
    """What the first worker has besides."""

    monitor: Monitor
    saver: Saver
    shown: np.ndarray  # images for pictures


@dataclass(frozen=True)
class Run:
    """What a training works with."""

    config: TrainConfig
    dataset: Dataset
    step: Step
    logs: Logs | None
    around: Surroundings


def _introduce(monitor: Monitor, start: Start, step: Step, group: Group, trouble: str) -> None:
    for line in [trouble, *start.notes]:
        if line:
            monitor.say(line)
    stand_by = group.everybody - group.size
    idle = f", {stand_by} standing by since the batches do not divide among {group.everybody}" if stand_by else ""
    numbers = f"{precision_taken(step)}, {'compiled' if step.config.compile else 'eager'}"
    monitor.say(f"{numbers} on {step.device}, {group.size} worker(s){idle}, from {start.images_seen:,} images")


def precision_taken(step: Step) -> str:
    """What networks compute in, and why."""
    asked = "" if step.config.precision == "auto" else " as asked"
    if step.bf16:
        return f"bf16 autocast{asked or ', which this device computes natively'}"
    return f"float32{asked or ', since this device has no native bf16'}"


def _all_phases(run: Run, phases: tuple[Phase, ...], start: Start) -> bool:
    """Go from the start to the end of the schedule; False when told to stop before."""
    images_seen = start.images_seen
    for phase in phases:
        if images_seen >= phase.end:
            continue
        if not run.step.group.stands_by:
            run.step.begin(phase)
            if start.has_moments and start.info and images_seen == start.images_seen:
                run.step.load_moments(start.info)
        images_seen, stopped = _one_phase(run, phase, images_seen)
        if stopped:
            return False
    return True


def _one_phase(run: Run, phase: Phase, images_seen: int) -> tuple[int, bool]:
    """Go to the phase's end, which the last step may pass by part of a batch; return count and whether told to stop.

    What is due after a step is decided by the count of images alone, so an interrupted run says the same things.
    """
    config, step, logs, around = run.config, run.step, run.logs, run.around
    means, since, clock, steps = RunningMeans(), images_seen, time.monotonic(), 0
    marks = np.linspace(phase.start, phase.end, config.pictures + 1)[1:-1]
    while images_seen < phase.end:
        before = images_seen
        if not step.group.stands_by:
            means.add(step.run(before))
        images_seen += phase.images_a_step
        last = images_seen >= phase.end
        steps, stopped = steps + 1, around.stopped()
        leave = stopped or (steps % ASKED_EVERY == 0 and around.ending_soon())
        save = last or leave or _crossed(before, images_seen, config.checkpoint_images)
        log = save or _crossed(before, images_seen, config.log_images)
        if log:
            check_in(step.group, None)
            values = {} if step.group.stands_by else means.read(step.group) | {"fingerprint": step.fingerprint()}
            seconds = time.monotonic() - clock
            values |= {
                "growth/resolution": phase.resolution,
                "growth/alpha": phase.alpha(images_seen),
                "speed/images_per_sec": (images_seen - since) / seconds,
                "speed/sec_per_kimg": seconds / (images_seen - since) * 1000,
            }
            if logs:
                _tell(logs.monitor, images_seen, phase, values, config)
            judged = logs.monitor.phase_validated(config.best_by) if logs else {}
            around.report({"images_seen": images_seen, **values, **judged})
            since = images_seen
        if logs and (last or any(before < mark <= images_seen for mark in marks)):
            _pictures(run, logs, phase, images_seen)
        if save and not step.group.stands_by:
            step.check_finite(before)
            check_agreement(step.group, step.networks, images_seen)
        if logs:
            logs.saver.check()
            if save:
                logs.saver.save(snapshot_of(run, phase, images_seen), must=last or leave)
        if log:
            clock = time.monotonic()  # pictures and copies for checkpoints do not count as training time
        if stopped:
            return images_seen, True
    return images_seen, False


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return after // every > before // every


def _tell(monitor: Monitor, images_seen: int, phase: Phase, values: dict[str, float], config: TrainConfig) -> None:
    monitor.metrics(images_seen, values)
    monitor.progress(images_seen, phase, values)
    for kind, warning in warnings(values, config.latent_size).items():
        monitor.warn(images_seen, phase, kind, warning)


def snapshot_of(run: Run, phase: Phase, images_seen: int) -> Snapshot:
    """Everything that the next step depends on; at a phase's end Adam's moments are no part of that."""
    over = images_seen >= phase.end
    files = weights_of(run.step.networks) | ({} if over else run.step.moments())
    alpha = phase.alpha(images_seen) if phase.fading and not over else None
    manifest = run.dataset.manifest
    return Snapshot(images_seen, phase.resolution, alpha, manifest.channels, manifest.digest, run.config, files)


def _pictures(run: Run, logs: Logs, phase: Phase, images_seen: int) -> None:
    """Real, generated and, where there is an encoder, reconstructed images."""
    config, networks, device = run.config, run.step.networks, run.step.device
    alpha = phase.alpha(images_seen) if phase.fading else None
    detector = AnomalyDetector(config, networks.by_name(), phase.resolution, run.dataset.channels, alpha, device)
    z = counter_random.latents(config.seed, counter_random.LATENT_FOR_GENERATOR, torch.arange(32), config.latent_size)
    with torch.no_grad(), networks.evaluating():
        shown = to_float(torch.from_numpy(logs.shown).to(device))
        real = faded(at_resolution(shown, phase.resolution), detector.alpha)
        rows = {"real": real, "generated": detector.scorer.generate(z.to(device))}
        grids = {name: images.permute(0, 2, 3, 1).cpu().numpy() for name, images in rows.items()}
        if can_score(config, images_seen):
            grids["reconstructed"] = detector.reconstruct(logs.shown)
    logs.monitor.pictures(images_seen, grids)
