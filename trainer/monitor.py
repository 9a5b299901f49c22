"""What a run says while it trains: metrics.jsonl, TensorBoard, pictures, and lines of progress in log.txt."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from trainer.figures import save_picture, tile
from trainer.growth import Phase, work

LOG = "log.txt"


class Monitor:
    """Writes the run folder's logs; only the first worker has one.

    On resume at `images_seen`, later lines of metrics.jsonl are dropped and TensorBoard is told to hide later events.
    """

    def __init__(self, run: Path, phases: tuple[Phase, ...], images_seen: int) -> None:
        self.run, self.phases = run, phases
        self.started, self.first = time.monotonic(), work(phases, images_seen)
        (run / "pictures").mkdir(parents=True, exist_ok=True)
        path = run / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _images_seen(line) <= images_seen]
            staged = path.with_suffix(".partial")
            staged.write_text("".join(line + "\n" for line in kept))
            os.replace(staged, path)
        self.lines = path.open("a", buffering=1)
        self.log = (run / LOG).open("a", buffering=1)
        self.events = SummaryWriter(str(run / "events"), purge_step=images_seen + 1)

    def metrics(self, images_seen: int, values: dict[str, float]) -> None:
        """Record values at a count of images seen (the step of every curve)."""
        self.lines.write(json.dumps({"images_seen": images_seen, **values}) + "\n")
        for name, value in values.items():
            self.events.add_scalar(name, value, images_seen)

    def say(self, line: str) -> None:
        """Print a line, and add it to the run's log."""
        print(line, flush=True)
        self.log.write(line + "\n")

    def progress(self, images_seen: int, phase: Phase, values: dict[str, float]) -> None:
        """Say one line: how far, how fast, how it goes, how long it may still take."""
        elapsed, total = time.monotonic() - self.started, self.phases[-1].end
        done = work(self.phases, images_seen)
        left = elapsed / (done - self.first) * (work(self.phases, total) - done)
        self.say(
            f"{images_seen / 1000:7.1f}/{total / 1000:.0f} kimg | {phase.name:<13} | "
            f"{values['speed/sec_per_kimg']:6.2f} sec/kimg | wasserstein {values['critic/wasserstein']:7.3f} | "
            f"distance {values['encoder/distance']:.3f} | {elapsed / 60:4.1f} min, about {left / 60:.1f} to go"
        )

    def pictures(self, images_seen: int, rows: dict[str, np.ndarray]) -> None:
        """rows: name to float images N x r x r x C in [-1, 1]; each becomes a grid."""
        for name, images in rows.items():
            grid = tile(images, columns=8)
            self.events.add_image(name, grid, images_seen, dataformats="HWC")
            save_picture(grid, self.run / "pictures" / f"{images_seen:09d}-{name}.png", scale=2)

    def close(self) -> None:
        self.lines.close()
        self.log.close()
        self.events.close()  # last: on a full disk it raises


def _images_seen(line: str) -> float:
    """The count in a line of metrics; infinite for a line cut off by a crash."""
    try:
        return json.loads(line)["images_seen"]
    except (ValueError, KeyError):
        return float("inf")


class RunningMeans:
    """Means of named scalars since the last read, kept on the device: no host synchronisation a step."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.total: Tensor | None = None
        self.steps = 0

    def add(self, values: dict[str, Tensor]) -> None:
        row = torch.stack(list(values.values()))
        self.names = list(values)
        self.total = row if self.total is None else self.total + row
        self.steps += 1

    def read(self, world: int) -> dict[str, float]:
        """Means over steps and workers since the last read; every worker must call it."""
        if self.total is None:
            return {}
        mean = self.total / self.steps
        if world > 1:
            torch.distributed.all_reduce(mean)
            mean /= world
        self.total, self.steps = None, 0
        return dict(zip(self.names, mean.tolist()))
