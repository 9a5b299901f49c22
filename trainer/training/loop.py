"""The training loop: one process of possibly many, plain torch.distributed, knows nothing of Ray.

What a step computes is a function of (config, data, images_seen); see schedule.py, batches.py and random.py. So all
that a run carries from step to step is in its checkpoints, and what it says and when is decided by images_seen.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import TrainingSet
from data_tools.errors import UserError
from trainer.config import TrainConfig
from trainer.contrast import FULL, Contrast, learned_contrast
from trainer.methods import method_of
from trainer.run.folder import check_begun, mark_finished, run_images
from trainer.run.resume import Start, find_start, load_moments, load_start, sole_trainer, unsettled
from trainer.schedule import Phase
from trainer.training.device import best_device
from trainer.training.first_worker import FirstWorker, first_worker
from trainer.training.group import check_agreement, check_in, form_group, told_by_first, trouble_named, wait_for_all
from trainer.training.health import NotFiniteError
from trainer.training.means import RunningMeans
from trainer.training.step import Step

ASKED_EVERY = 32
"""Steps between two questions whether a machine is about to go: they cost a round of messages."""


@dataclass(frozen=True)
class Hooks:
    """What the loop asks of and tells to whatever runs it. Workers of a group are asked the same number of times."""

    report: Callable[[dict[str, float]], None] = lambda values: None  # each line of metrics
    log: Callable[[str], None] = field(default=lambda line: print(line, flush=True))  # the first worker's lines
    begun: Callable[[int], None] = lambda images_seen: None  # where training starts or goes on
    ending_soon: Callable[[], bool] = lambda: False  # whether this machine is about to be taken away
    stopped: Callable[[], bool] = lambda: False  # whether to save and leave
    node: str = "this machine"


@dataclass(frozen=True)
class Run:
    """What a training works with; first: what the first worker does besides, None in the others."""

    config: TrainConfig
    phases: tuple[Phase, ...]
    start: Start
    step: Step
    first: FirstWorker | None
    hooks: Hooks


def train(config: TrainConfig, hooks: Hooks | None = None) -> None:
    """Train from the newest checkpoint of the run, or from the start, to the end of the schedule.

    Every worker of a torch.distributed group calls this with the same config. When weights become infinite or NaN,
    all go back to the newest checkpoint once; the second time it is a UserError.
    """
    hooks = hooks or Hooks()
    try:
        _train(config, hooks)
    except NotFiniteError as error:
        trouble = f"warning: {error}; going back to the newest checkpoint"
    else:
        return
    try:
        _train(config, hooks, trouble)
    except NotFiniteError as error:
        raise UserError(
            f"{config.out}: {error}, again after going back to the newest checkpoint"
            " - lower --learning-rate or give --precision float32, in another --out --from this one"
        ) from None


def _train(config: TrainConfig, hooks: Hooks, trouble: str = "") -> None:
    torch.backends.cudnn.deterministic = True  # a run that was interrupted must end as one that was not
    with _set_up(config, hooks, trouble) as run:
        try:
            with trouble_named(run.step.group, config.patience):
                finished = _to_the_end(run)
        except NotFiniteError as error:
            if not run.step.group.stands_by:
                check_in(run.step.group, error.images_seen)
            if run.first:
                run.first.saver.finish()  # what waits is good, and is what all go back to
            raise
        if run.first:
            run.first.saver.finish()
            if finished:
                mark_finished(config.out, run.first.saver.still_ours)
            else:
                run.first.monitor.say("stopped; the same command goes on from here")


def _to_the_end(run: Run) -> bool:
    """From the start to the end of the schedule; False when told to stop before.

    A phase's last step may pass its end by part of a batch. What is due after a step is decided by the count of images
    alone, so an interrupted run says the same things.
    """
    config, step, first, hooks, images_seen = run.config, run.step, run.first, run.hooks, run.start.images_seen
    trains = not step.group.stands_by
    for phase in run.phases:
        if images_seen >= phase.end:
            continue
        if trains:
            step.begin(phase)
            if run.start.has_moments and images_seen == run.start.images_seen:
                load_moments(run.start, step)
        means, since, clock, steps = RunningMeans(), images_seen, time.monotonic(), 0
        while images_seen < phase.end:
            # One step.
            before = images_seen
            if trains:
                means.add(step.run(before))
            images_seen, steps = images_seen + phase.images_a_step, steps + 1

            # What is due now.
            last, stopped = images_seen >= phase.end, hooks.stopped()
            leave = stopped or (steps % ASKED_EVERY == 0 and hooks.ending_soon())
            save = last or leave or _crossed(before, images_seen, config.checkpoint_images)
            log = save or _crossed(before, images_seen, config.log_images)
            draw = last or any(before < mark <= images_seen for mark in _picture_marks(phase, config.pictures))

            # Logging.
            if log:
                check_in(step.group, None)
                values = means.read(step.group) | {"fingerprint": step.fingerprint()} if trains else {}
                values |= _progress(phase, images_seen, since, time.monotonic() - clock)
                judged = first.log(images_seen, phase, values) if first else {}
                hooks.report({"images_seen": images_seen, **values, **judged})
                since = images_seen

            # Pictures.
            if first and draw:
                first.draw(step, phase, images_seen)

            # Saving.
            if save and trains:
                step.check_finite(before)
                check_agreement(step.group, step.networks, images_seen)
            if first:
                first.saver.check()
                if save:
                    first.save(step, phase, images_seen, must=last or leave)
            if log:
                clock = time.monotonic()  # pictures and copies for checkpoints do not count as training time

            # Stopping.
            if stopped:
                return False
    return True


@contextlib.contextmanager
def _set_up(config: TrainConfig, hooks: Hooks, trouble: str) -> Iterator[Run]:
    """Workers, data, networks with their first weights, and what the first worker writes to; closed at the end."""
    device, phases, method = best_device(), config.schedule(), method_of(config)
    group = form_group({phase.batch for phase in phases}, config.patience, hooks.node)
    with contextlib.ExitStack() as stack:
        still_ours = stack.enter_context(sole_trainer(config.out)) if group.rank == 0 else None
        if still_ours:
            check_begun(config)
        start = told_by_first(group, find_start(config) if still_ours else None)
        dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
        data = run_images(config.out, config, dataset)
        networks = method.networks(config, dataset.channels, len(data)).to(device)
        load_start(start, networks, dataset.channels)
        step = method.step(config, networks, data, device, group)
        step.contrast = _contrast(config, start, data)
        wait_for_all(group)
        first = None
        if still_ours:
            waits = unsettled(start, config.out, networks)
            first = stack.enter_context(first_worker(config, dataset, data, start, hooks.log, still_ours, waits))
            first.introduce(step, start, trouble)
        hooks.begun(start.images_seen)
        yield Run(config, phases, start, step, first, hooks)


def _contrast(config: TrainConfig, start: Start, data: TrainingSet) -> Contrast:
    """That of the weights to start from, which know no other; else what the configuration asks for."""
    if start.info:
        return start.info.contrast
    return learned_contrast(data) if config.contrast == "learned" else FULL


def _picture_marks(phase: Phase, pictures: int) -> np.ndarray:
    """The counts of images within a phase at which pictures are due."""
    return np.linspace(phase.start, phase.end, pictures + 1)[1:-1]


def _progress(phase: Phase, images_seen: int, since: int, seconds: float) -> dict[str, float]:
    """Where in its growth a training is, and how fast it has been since the last line of metrics."""
    return {
        "growth/resolution": phase.resolution,
        "growth/alpha": phase.alpha(images_seen),
        "speed/images_per_sec": (images_seen - since) / seconds,
        "speed/sec_per_kimg": seconds / (images_seen - since) * 1000,
    }


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return after // every > before // every
