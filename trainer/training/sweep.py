"""A sweep: something of training images by networks in eval mode, computed between two phases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainer.schedule import Phase
from trainer.training.batches import at_resolution, to_float
from trainer.training.step import Step

IMAGES = 256
"""Of a sweep, at a time."""


@torch.no_grad()
def swept(step: Step, phase: Phase, of: Callable[[Tensor], Tensor], most: int | None = None) -> Tensor:
    """`of` of the training set's images, or of the `most` first ones, in the order of positions: N x anything.

    of: images as networks see them, n x C x r x r, each by itself, to n x anything. The first worker alone calls it;
    what follows of it is kept in a buffer of a network, which checkpoints save and the others receive.
    """
    count = min(len(step.data), most or len(step.data))
    found = []
    with step.networks.evaluating():
        for start in range(0, count, IMAGES):
            images = torch.from_numpy(step.data.at(np.arange(start, min(start + IMAGES, count)))).to(step.device)
            found.append(of(at_resolution(to_float(images, step.contrast), phase.resolution)))
    return torch.cat(found)
