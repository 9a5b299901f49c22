"""Where a step's time goes: its parts have names, and `bench` may put a stopwatch on them."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch

DATA, LATENTS, FAKES = "data", "latents", "fakes"
CRITIC_FORWARD, PENALTY, CRITIC_BACKWARD = "critic forward", "penalty", "critic backward"
GENERATOR_ENCODER, OPTIMISER, EMA, CHECKS = "generator and encoder", "optimiser", "EMA", "checks"
REDUCTION, BETWEEN = "reduction", "between"
PARTS = (
    DATA,
    LATENTS,
    FAKES,
    CRITIC_FORWARD,
    PENALTY,
    CRITIC_BACKWARD,
    GENERATOR_ENCODER,
    OPTIMISER,
    EMA,
    CHECKS,
    BETWEEN,
    REDUCTION,
)


class Stopwatch:
    """Seconds spent in each part: of the host's clock, or on a GPU between two events of its stream."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.times: defaultdict[str, float] = defaultdict(float)
        self.events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self.on_gpu:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self.events.append((name, begin, end))
        else:
            begun = time.perf_counter()
            yield
            self.times[name] += time.perf_counter() - begun

    def seconds(self) -> dict[str, float]:
        """So far, by part; waits for the GPU."""
        if self.on_gpu:
            torch.cuda.synchronize()
            for name, begin, end in self.events:
                self.times[name] += begin.elapsed_time(end) / 1000
            self.events.clear()
        return dict(self.times)


_stopwatch: Stopwatch | None = None
_NOTHING = nullcontext()


def part(name: str) -> AbstractContextManager[None]:
    """What the block does is this part of a step."""
    if torch.compiler.is_compiling():
        return _NOTHING  # within a graph there are no parts
    return _stopwatch.part(name) if _stopwatch else _NOTHING


@contextlib.contextmanager
def stopwatch(device: torch.device) -> Iterator[Stopwatch]:
    """Time the parts of the steps that this process takes while the block lasts."""
    global _stopwatch
    _stopwatch = Stopwatch(device)
    try:
        yield _stopwatch
    finally:
        _stopwatch = None
