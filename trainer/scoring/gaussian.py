"""A Gaussian of training images' numbers, and how far an image's are from it: what terms that compare may use."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SHRINKAGE = 0.1
"""Share of the identity, times the mean variance, in the covariance (Ledoit and Wolf's form, with a fixed share)."""
MIN_VARIANCE = 1e-12
"""Below it all rows are the same: what is compared are directions of unit length, and pixels of about [-1, 1]."""


def gaussian(rows: np.ndarray) -> np.ndarray:
    """What is kept of n rows, n x F: float32 (F + 2) x F.

    First their mean; then n, in all places; then W, symmetric, with W W = A^-1 and
    A = (1 - s) S / (n - 2) + s v I, where S is the rows' scatter about their mean, v the mean variance, s SHRINKAGE.
    """
    values = rows.astype(np.float64)
    n, size = values.shape
    mean = values.mean(axis=0)
    centred = values - mean
    covariance = centred.T @ centred / max(n - 2, 1)
    variance = max(float(np.trace(covariance)) / size, MIN_VARIANCE)
    lengths, axes = np.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * variance * np.eye(size))
    whitening = (axes / np.sqrt(lengths)) @ axes.T
    return np.concatenate([mean[None], np.full((1, size), n), whitening]).astype(np.float32)


def mahalanobis(rows: Tensor, kept: Tensor, own: Tensor | None = None) -> Tensor:
    """sqrt(d^T A^-1 d) of d = row - mean, N; rows: N x F, kept: as of `gaussian`.

    own: int64 N, at least 0 where a row is one of those that mean and A are made of: it is left out of both. That
    takes no new A: with c = (1 - s) n / ((n - 1) (n - 2)) and q = d^T A^-1 d the rank-one downdate
    (A - c d d^T)^-1 gives (n / (n - 1))^2 q / (1 - c q). Only v is not corrected.
    """
    squares = ((rows - kept[0]) @ kept[2:]).square().sum(dim=1)
    if own is not None:
        n = kept[1, 0].double()
        c = (1 - SHRINKAGE) * n / ((n - 1) * (n - 2)).clamp_min(1)
        q = squares.double()
        without = (n / (n - 1).clamp_min(1)).square() * q / (1 - c * q).clamp_min(1e-6)
        squares = torch.where(own >= 0, without, q).to(rows.dtype)
    return squares.sqrt()
