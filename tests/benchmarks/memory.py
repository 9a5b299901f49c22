"""What a step takes in memory, on a CPU: `make memory MICROBATCH=8`, 0 for a step in one pass.

The paper's KTH networks at full width, 64x64, batch 32, float32. A step takes minutes on two cores.
"""

from __future__ import annotations

import sys

import torch

from trainer.bench.machine import forget_peak_memory, peak_memory
from trainer.bench.made_up import MadeUpImages
from trainer.config import TrainConfig
from trainer.methods.proposed.step import GrowingStep
from trainer.networks.progressive import Networks
from trainer.schedule import Phase
from trainer.training.group import Group


def peaks(microbatch: int) -> tuple[float, float]:
    """GiB of this process before its first step, and at most in it."""
    config, device = TrainConfig(microbatch=microbatch, precision="float32"), torch.device("cpu")
    networks = Networks.build(config.resolution, 1, config.width, config.seed).to(device)
    step = GrowingStep(config, networks, MadeUpImages(config.resolution, 1), device, Group())
    step.begin(Phase(0, config.resolution, "stable", 0, 1000, config.minibatch[config.resolution], 0.001))
    forget_peak_memory(device)
    before = peak_memory(device)
    step.run(0)
    return before / 1024, peak_memory(device) / 1024


if __name__ == "__main__":
    before, most = peaks(int(sys.argv[1]))
    print(f"--microbatch {sys.argv[1]}: {most:.2f} GiB at most, {before:.2f} before the first step")
