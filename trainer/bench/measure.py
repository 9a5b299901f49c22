"""A training's steps measured, one kind of phase after the other, by the code that trains."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from data_tools.dataset.training_set import TrainingSet
from trainer.bench.machine import forget_peak_memory, peak_memory, settle
from trainer.bench.operations import Operations
from trainer.config import TrainConfig
from trainer.methods import method_of
from trainer.schedule import Phase
from trainer.training.group import Group, broadcast_from_first
from trainer.training.step import Step
from trainer.training.timing import BETWEEN, REDUCTION, stopwatch

BLOCKS = 5
"""Stretches of equal length whose median is the speed: a machine that stumbles spoils one of them."""
WARM_UP = 3


@dataclass(frozen=True)
class Measured:
    """One kind of phase. Rates count the images of all workers; operations and memory are one worker's."""

    phase: str
    resolution: int
    batch: int
    images_per_sec: float
    sec_per_kimg: float
    spread: float  # (slowest - fastest stretch) / median, in time
    gflop_per_image: float  # counted, multiply and add as two
    gflops: float  # operations a second
    of_peak: float  # as a share of the matrix product's
    memory_mib: float  # peak, of the device; on a CPU of the process
    shares: dict[str, float]  # of a step's time, by part
    busy: float | None  # share of the time in which a GPU computes; None on a CPU


def measure(
    config: TrainConfig,
    phase: Phase,
    data: TrainingSet,
    channels: int,
    device: torch.device,
    group: Group,
    seconds: float,
    peak: float,
) -> Measured:
    """Take steps of this phase for about `seconds` a measurement. Every worker of the group calls it."""
    flop = _operations(config, phase, data, channels, device, group)
    forget_peak_memory(device)
    step, steps = _begun(config, phase, data, channels, device, group)
    steps.take(WARM_UP)
    count = max(int(broadcast_from_first(group, seconds / steps.take(1))), BLOCKS)
    blocks = np.array([steps.take(count // BLOCKS) for _ in range(BLOCKS)]) / (count // BLOCKS)
    memory = peak_memory(device)
    each = float(np.median(blocks))
    return Measured(
        phase.name,
        phase.resolution,
        phase.batch,
        phase.images_a_step / each,
        each / phase.images_a_step * 1000,
        float(np.ptp(blocks)) / each,
        flop / (phase.images_a_step / group.size) / 1e9,
        flop / each / 1e9,
        flop / each / 1e9 / peak,
        memory,
        _shares(steps, step, max(count // BLOCKS, 3), each),
        _busy(steps, device),
    )


class _Steps:
    """Steps from the middle of a phase on, and how long they take."""

    def __init__(self, step: Step, phase: Phase, device: torch.device) -> None:
        self.step, self.phase, self.device = step, phase, device
        self.images_seen = (phase.start + phase.end) // 2

    def take(self, count: int) -> float:
        """Seconds that so many steps take."""
        begun = time.perf_counter()
        for _ in range(count):
            self.step.run(self.images_seen)
            self.images_seen += self.phase.images_a_step
        settle(self.device)
        return time.perf_counter() - begun


def _begun(
    config: TrainConfig, phase: Phase, data: TrainingSet, channels: int, device: torch.device, group: Group
) -> tuple[Step, _Steps]:
    method = method_of(config)
    step = method.step(config, method.networks(config, channels, len(data)).to(device), data, device, group)
    step.begin(phase)
    return step, _Steps(step, phase, device)


def _operations(
    config: TrainConfig, phase: Phase, data: TrainingSet, channels: int, device: torch.device, group: Group
) -> int:
    """Of a step by one worker; counted in an eager one, since what counts cannot look into a compiled one."""
    _, steps = _begun(replace(config, compile=False), phase, data, channels, device, group)
    with Operations() as counted:
        steps.take(1)
    return counted.flop


def _shares(steps: _Steps, step: Step, count: int, each: float) -> dict[str, float]:
    """Shares of a step's time by part. What reduction costs is what steps without it save, and is in others' shares."""
    with stopwatch(steps.device) as watch:
        whole = steps.take(count)
    shares = {name: seconds / whole for name, seconds in watch.seconds().items()}
    shares[BETWEEN] = 1 - sum(shares.values())
    if reduced := [value for value in vars(step).values() if isinstance(value, DistributedDataParallel)]:
        with contextlib.ExitStack() as alone:
            for objective in reduced:
                alone.enter_context(objective.no_sync())
            shares[REDUCTION] = max(1 - steps.take(count) / count / each, 0.0)
    return shares


def _busy(steps: _Steps, device: torch.device) -> float | None:
    """The share of the time in which a GPU's kernels run; the rest are gaps in which it waits for the host."""
    if device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        whole = steps.take(10)
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / whole
