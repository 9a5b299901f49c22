"""`make speed`: a step of ours against the plain one of tests/support/plain.py, in turn in one process; two workers.

`make speed WIDTHS="64 256"` takes these widths. Prints images/s of both, their ratio, and what bounds ours: its
operations a second against the peak of the matrix product measured in the same run, and how many operations an image
costs in each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tests.support.plain import PlainStep
from trainer.bench.machine import matmul_peak
from trainer.bench.made_up import MadeUpImages
from trainer.bench.operations import Operations
from trainer.config import TrainConfig
from trainer.methods.proposed.step import GrowingStep
from trainer.networks.progressive import Networks
from trainer.schedule import Phase
from trainer.training.batches import to_float
from trainer.training.device import best_device, has_native_bf16
from trainer.training.group import Group

ROUNDS, SECONDS, BATCH = 5, 1.5, 32
Run = Callable[[int], object]


def both(resolution: int, width: int) -> tuple[Run, Run]:
    """Functions that take a step of each kind from a count of images on."""
    config, device = TrainConfig(resolution=resolution, width=width), best_device()
    data = MadeUpImages(resolution, 1)
    ours = GrowingStep(config, Networks.build(resolution, 1, width, 0).to(device), data, device, Group())
    ours.begin(Phase(0, resolution, "stable", 0, 10**9, BATCH, config.learning_rate))
    plain = PlainStep(Networks.build(resolution, 1, width, 0), config, resolution)
    for network in plain.networks.by_name().values():
        network.to(device)

    def take_plain(images_seen: int) -> None:
        batch = torch.from_numpy(data.at(np.arange(images_seen, images_seen + BATCH))).to(device)
        z, again = torch.randn(2, BATCH, width, device=device)
        plain.update_critic(to_float(batch).contiguous(), z, torch.rand(BATCH, 1, 1, 1, device=device), None)
        plain.update_generator(again, None)

    return ours.run, take_plain


def seconds(run: Run, steps: int) -> float:
    """A step's."""
    begun = time.perf_counter()
    for step in range(steps):
        run(step * BATCH)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / steps


def gflop(run: Run) -> float:
    with Operations() as counted:
        run(0)
    return counted.flop / BATCH / 1e9


def against_plain(console: Console, widths: Sequence[int]) -> None:
    device = best_device()
    kinds = ("float32", "bf16") if has_native_bf16(device) else ("float32",)
    peaks = [f"{matmul_peak(device, kind == 'bf16'):,.0f} GFLOP/s in {kind}" for kind in kinds]
    console.print(f"matrix products reach {', '.join(peaks)}; a step of ours takes the last of these")
    table = Table(title=f"A step's images/s, batch {BATCH}, median of {ROUNDS} alternating rounds")
    for heading in (
        "width",
        "",
        "plain",
        "ours",
        "ratio",
        "from",
        "to",
        "GFLOP/image",
        "plain's",
        "GFLOP/s",
        "plain's",
    ):
        table.add_column(heading, justify="right")
    for width in widths:
        for resolution in (4, 8, 16, 32, 64):
            ours, plain = both(resolution, width)
            counts = {}
            for run in (ours, plain):
                seconds(run, 1)
                counts[run] = max(int(SECONDS / seconds(run, 1)), 1)
            rounds = np.array([[seconds(run, counts[run]) for run in (plain, ours)] for _ in range(ROUNDS)])
            ratios, (p, o) = rounds[:, 0] / rounds[:, 1], np.median(rounds, axis=0)
            cost, plains = gflop(ours), gflop(plain)
            numbers = (np.median(ratios), ratios.min(), ratios.max(), cost, plains)
            speeds = (cost * BATCH / o, plains * BATCH / p)
            table.add_row(
                str(width),
                f"{resolution}x{resolution}",
                f"{BATCH / p:.1f}",
                f"{BATCH / o:.1f}",
                *(f"{number:.2f}" for number in numbers[:3]),
                *(f"{number:.3g}" for number in numbers[3:]),
                *(f"{speed:,.0f}" for speed in speeds),
            )
            console.print(f"{width} {resolution}x{resolution}: {np.median(ratios):.2f}")
    console.print(table)


def two_workers(console: Console) -> None:
    """Weak scaling: 32 images a step on one worker pinned to a core, 64 on two, alternately."""
    words = "--preset kth --resolution 32 --width 64 --only 32 --seconds 4 --cores 1"
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(3):
            for workers in found:
                out, batch = Path(place) / "figures.json", f"--minibatch.32 {BATCH * workers}"
                command = f"-m trainer bench {words} {batch} --workers {workers} --json {out}"
                subprocess.run([sys.executable, *command.split()], check=True, stdout=subprocess.DEVNULL)
                rows = {row["phase"]: row for row in json.loads(out.read_text())["phases"]}
                found[workers].append(rows["32x32 stable"]["images_per_sec"])
    ratios = np.array(found[2]) / np.array(found[1])
    console.print(
        f"32x32, width 64, one core a worker: {np.median(found[1]):.1f} images/s with one, {np.median(found[2]):.1f}"
        f" with two: {np.median(ratios):.2f} times ({ratios.min():.2f} to {ratios.max():.2f})"
    )


if __name__ == "__main__":
    console = Console(width=None if os.isatty(1) else 160)
    against_plain(console, [int(word) for word in sys.argv[1:]])
    two_workers(console)
