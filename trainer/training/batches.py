"""Batches by global position: which samples a step sees, and how real images look at a resolution."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainer.contrast import FULL, Contrast
from trainer.networks.layers import downsample, upsample


def worker_positions(images_seen: int, batch: int, rank: int, world: int) -> np.ndarray:
    """The positions of one worker's part of the global batch: a contiguous run, so stddev groups stay whole."""
    share = batch // world
    start = images_seen + rank * share
    return np.arange(start, start + share)


def to_float(images: Tensor, contrast: Contrast = FULL) -> Tensor:
    """uint8 N x H x W x C to float32 N x C x H x W as networks see them, about [-1, 1]; channels last in memory."""
    return contrast.seen(images.permute(0, 3, 1, 2).float())


def at_resolution(images: Tensor, resolution: int) -> Tensor:
    """Average float images N x C x H x W down to N x C x r x r."""
    factor = images.shape[-1] // resolution
    return downsample(images, factor) if factor > 1 else images


def faded(images: Tensor, alpha: Tensor | None) -> Tensor:
    """Real images as shown during a fade: lerp(up(down(x)), x, alpha)."""
    return images if alpha is None else torch.lerp(upsample(downsample(images)), images, alpha)
