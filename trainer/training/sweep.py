"""A sweep: something of training images by networks in eval mode, computed between two phases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from trainer.schedule import Phase
from trainer.training.batches import at_resolution, to_float
from trainer.training.step import Step

IMAGES = 256
"""Of a sweep, at a time."""


class Found(nn.Module):
    """Keeps, in its buffers, what a sweep before a phase has found; a resume within the phase loads it."""

    found_in: Tensor  # the phase, by its index

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("found_in", torch.tensor(-1))


def find_once(step: Step, phase: Phase, module: Found, find: Callable[[], object]) -> None:
    """Let the first worker find what a phase needs, if no one has; the others receive it. All workers call it."""
    if int(module.found_in) < phase.index:
        if step.group.rank == 0:
            find()
        module.found_in.fill_(phase.index)
        step.share_buffers()


@torch.no_grad()
def swept(step: Step, phase: Phase, of: Callable[[Tensor], Tensor], most: int | None = None) -> Tensor:
    """`of` of the training set's images, or of the `most` first ones, in the order of positions: N x anything.

    of: images as networks see them, n x C x r x r, each by itself, to n x anything. See `find_once`.
    """
    count = min(len(step.data), most or len(step.data))
    result = []
    with step.networks.evaluating():
        for start in range(0, count, IMAGES):
            images = torch.from_numpy(step.data.at(np.arange(start, min(start + IMAGES, count)))).to(step.device)
            result.append(of(at_resolution(to_float(images, step.contrast), phase.resolution)))
    return torch.cat(result)
