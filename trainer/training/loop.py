"""The training loop: one process of possibly many, plain torch.distributed, knows nothing of Ray.

What a step computes is a function of (config, data, images_seen); see schedule.py, batches.py and random.py. So all
that a run carries from step to step is in its checkpoints, and what it says and when is decided by images_seen.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import TrainingSet
from data_tools.errors import UserError
from data_tools.storage import StillOurs
from trainer.config import TrainConfig
from trainer.contrast import Contrast, contrast_of
from trainer.methods import method_of
from trainer.run.folder import check_begun, mark_finished, run_images
from trainer.run.recoveries import clear_abandoned, record_failure
from trainer.run.resume import Start, find_start, load_moments, load_start, run_lock, unsettled
from trainer.schedule import Phase
from trainer.training.device import best_device
from trainer.training.first_worker import FirstWorker, first_worker
from trainer.training.group import (
    barrier,
    broadcast_from_first,
    check_agreement,
    explained_timeouts,
    form_group,
    tell_idle_workers,
)
from trainer.training.health import NotFiniteError
from trainer.training.means import RunningMeans
from trainer.training.step import Step
from trainer.training.vitals import MARKS, FailedError

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
    """What a training run works with; first, still_ours: the first worker's, None in the others."""

    config: TrainConfig
    phases: tuple[Phase, ...]
    start: Start
    step: Step
    first: FirstWorker | None
    hooks: Hooks
    still_ours: StillOurs | None


def train(config: TrainConfig, hooks: Hooks | None = None) -> None:
    """Train from the newest checkpoint of the run, or from the start, to the end of the schedule.

    Every worker of a torch.distributed group calls this with the same config. When weights become NaN or infinite, all
    go back to the newest checkpoint once, since it may have been the machine. When that happens again, or the training
    is found dead, all go back to a checkpoint that was well, with lower learning rates; twice, then it is a UserError.
    """
    hooks, trouble, excused = hooks or Hooks(), "", True
    while True:
        try:
            return _train(config, hooks, trouble, excused)
        except NotFiniteError as error:
            trouble, excused = f"warning: {error}; going back to the newest checkpoint", False
        except FailedError:
            trouble = ""  # what is done about it is written down in the run, by which it starts


def _train(config: TrainConfig, hooks: Hooks, trouble: str, excused: bool) -> None:
    """excused: weights that are NaN or infinite may still have been the machine."""
    torch.backends.cudnn.deterministic = True  # a run that was interrupted must end as one that was not
    with _set_up(config, hooks, trouble) as run:
        try:
            with explained_timeouts(run.step.group, config.patience):
                finished = _run_phases(run)
        except NotFiniteError as error:
            if not run.step.group.is_idle:
                tell_idle_workers(run.step.group, error.images_seen)
            if run.first:
                run.first.saver.finish()  # what waits is good, and is what all go back to
            if excused:
                raise
            raise _recorded(run, FailedError(error.images_seen, "the weights are NaN or infinite")) from None
        except FailedError as error:
            if run.first:
                run.first.saver.finish()
            raise _recorded(run, error) from None
        if run.first:
            run.first.saver.finish()
            if finished:
                mark_finished(config.out, run.first.saver.still_ours)
            else:
                run.first.monitor.say("stopped; the same command goes on from here")


def _run_phases(run: Run) -> bool:
    """From the start to the end of the schedule; False when told to stop before.

    A phase's last step may pass its end by part of a batch. What is due after a step is decided by the count of images
    alone, so an interrupted run says the same things.
    """
    config, step, first, hooks, images_seen = run.config, run.step, run.first, run.hooks, run.start.images_seen
    trains, ailing, trouble = not step.group.is_idle, run.start.ailing, ""
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
            mark = last or _crossed(before, images_seen, config.log_images)
            log = save or mark
            draw = last or any(before < mark <= images_seen for mark in _picture_marks(phase, config.pictures))

            # Logging.
            if log:
                tell_idle_workers(step.group, None)
                values = means.read(step.group) | {"fingerprint": step.fingerprint()} if trains else {}
                values |= _progress(phase, images_seen, since, time.monotonic() - clock)
                if mark:
                    vitals = broadcast_from_first(
                        step.group, first.examine(step, phase, images_seen) if first else None
                    )
                    values |= vitals.metrics()
                    trouble = vitals.trouble
                    ailing = ailing + 1 if trouble else 0
                judged = first.log(images_seen, phase, values) if first else {}
                hooks.report({"images_seen": images_seen, **values, **judged})
                since = images_seen

            # A training that is dead.
            if ailing >= MARKS or (ailing and images_seen >= run.phases[-1].end):
                raise FailedError(images_seen, trouble)

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
                    first.save(step, phase, images_seen, must=last or leave, ailing=ailing)
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
        still_ours = stack.enter_context(run_lock(config.out)) if group.rank == 0 else None
        if still_ours:
            check_begun(config)
        start = broadcast_from_first(group, find_start(config) if still_ours else None)
        phases = tuple(replace(each, learning_rate=each.learning_rate * start.recoveries.rate) for each in phases)
        if still_ours:
            clear_abandoned(config.out, start.recoveries, still_ours)
        dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
        data = run_images(config.out, config, dataset)
        networks = method.networks(config, dataset.channels, len(data)).to(device)
        load_start(start, networks, dataset.channels)
        step = method.step(config, networks, data, device, group)
        step.contrast = _contrast(config, start, data)
        barrier(group)
        first = None
        if still_ours:
            waits = unsettled(start, config.out, networks)
            first = stack.enter_context(first_worker(config, dataset, data, start, hooks.log, still_ours, waits))
            first.introduce(step, start, trouble)
        hooks.begun(start.images_seen)
        yield Run(config, phases, start, step, first, hooks, still_ours)


def _contrast(config: TrainConfig, start: Start, data: TrainingSet) -> Contrast:
    """That of the weights to start from, which know no other; else what the configuration asks for."""
    if start.info:
        return start.info.contrast
    return contrast_of(data, config.contrast == "learned")


def _recorded(run: Run, failed: FailedError) -> FailedError | UserError:
    """Write down that the training is dead and what is done about it, before that is done.

    Returns the same error, or the UserError by which a run ends that has gone back often enough.
    """
    given_up = None
    if run.still_ours:
        rate = run.config.schedule()[0].learning_rate
        given_up = record_failure(run.config.out, failed.images_seen, failed.why, rate, run.still_ours)
    said = broadcast_from_first(run.step.group, given_up)
    return UserError(said) if said else failed


def _picture_marks(phase: Phase, pictures: int) -> np.ndarray:
    """The counts of images within a phase at which pictures are due."""
    return np.linspace(phase.start, phase.end, pictures + 1)[1:-1]


def _progress(phase: Phase, images_seen: int, since: int, seconds: float) -> dict[str, float]:
    """Where in its growth a training run is, and how fast it has been since the last line of metrics."""
    return {
        "growth/resolution": phase.resolution,
        "growth/alpha": phase.alpha(images_seen),
        "speed/images_per_sec": (images_seen - since) / seconds,
        "speed/sec_per_kimg": seconds / (images_seen - since) * 1000,
    }


def _crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return after // every > before // every
