"""Dirichlet distributions fitted by maximum likelihood (Minka 2000), all of them at once, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS, NEWTON_STEPS, CLOSE = 1000, 5, 1e-9
EULER = 0.5772156649015329


def fitted(log_p: Tensor) -> Tensor:
    """The most likely alphas of n observations for each of T distributions over K: log p, n x T x K to T x K, float64.

    The fixed point psi(a_j) = psi(sum a) + mean log p_j, from the closed form of Wicker et al. (2008) on; it ends when
    no alpha moves by more than CLOSE, relatively, or after STEPS.
    """
    log_p = log_p.double()
    mean_log, mean = log_p.mean(0), log_p.exp().mean(0).clamp_min(1e-300)
    alphas = mean * _total(mean, mean_log)
    for _ in range(STEPS):
        new = inverse_digamma(torch.digamma(alphas.sum(1, keepdim=True)) + mean_log)
        moved = ((new - alphas).abs() / alphas).max()
        alphas = new
        if moved < CLOSE:
            break
    return alphas


def _total(mean: Tensor, mean_log: Tensor) -> Tensor:
    """The sum of alphas to start from, T x 1: psi(x) is about log x - 1 / (2 x), or EULER for 1 / 2 at small x."""
    apart = (mean * (mean.log() - mean_log)).sum(1, keepdim=True).clamp_min(1e-12)
    return (mean.shape[1] - 1) * EULER / apart


def inverse_digamma(values: Tensor) -> Tensor:
    """x with psi(x) = values, by Newton's steps (Minka 2000, appendix C)."""
    x = torch.where(values >= -2.22, values.exp() + 0.5, -1 / (values + EULER))
    for _ in range(NEWTON_STEPS):
        x = x - (torch.digamma(x) - values) / torch.polygamma(1, x)
    return x


def log_density(log_p: Tensor, alphas: Tensor) -> Tensor:
    """Up to a constant of the alphas: sum_j (a_j - 1) log p_j; ... x K each to ... ."""
    return ((alphas - 1) * log_p).sum(-1)
