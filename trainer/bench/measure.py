"""A training's steps measured, one kind of phase after the other, by the code that trains."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from data_tools.training_set import TrainingSet
from trainer.config import TrainConfig
from trainer.group import Group, told_by_first
from trainer.growth import Phase
from trainer.methods import build_networks, build_step
from trainer.parts import BETWEEN, REDUCTION, stopwatch
from trainer.step import Step

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


def matmul_peak(device: torch.device, bf16: bool, seconds: float = 1.0) -> float:
    """GFLOP/s of the fastest of many products of square matrices, in the precision that training uses."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16 if bf16 else torch.float32) for _ in range(2))
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        torch.mm(a, b)
        _settle(device)
        fastest = min(fastest, time.perf_counter() - begun)
    return 2 * n**3 / fastest / 1e9


class Operations(TorchDispatchMode):
    """Counts the operations of convolutions and matrix products while the block lasts, multiply and add as two.

    By torch's own formulas; its FlopCounterMode cannot look into a gradient that is itself differentiated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.flop += formula(*args, **(kwargs or {}), out_val=out)
        return out


class MadeUpImages:
    """Images of noise in memory, where no dataset is named."""

    def __init__(self, resolution: int, channels: int) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (512, resolution, resolution, channels), np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def at(self, positions: np.ndarray) -> np.ndarray:
        return self.images[positions % len(self.images)]


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
    _forget_peak_memory(device)
    step = build_step(config, build_networks(config, channels).to(device), data, device, group)
    step.begin(phase)
    steps = _Steps(step, phase, device)
    steps.take(WARM_UP)
    count = max(int(told_by_first(group, seconds / steps.take(1))), BLOCKS)
    blocks = np.array([steps.take(count // BLOCKS) for _ in range(BLOCKS)]) / (count // BLOCKS)
    memory = _peak_memory(device)
    each = float(np.median(blocks))
    with Operations() as counted:
        steps.take(1)
    flop = counted.flop
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
        _settle(self.device)
        return time.perf_counter() - begun


def _shares(steps: _Steps, step: Step, count: int, each: float) -> dict[str, float]:
    """Shares of a step's time by part. What reduction costs is what steps without it save."""
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


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _forget_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(device: torch.device) -> float:
    """MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
