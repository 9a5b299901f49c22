"""The terms of a score that needs no labels, and how they become one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trainer.scoring.p_values import p_values

NEIGHBOURS = 5
TERMS = {
    "L_n": "normalised residual: how badly the generator says what the encoder saw",
    "L_o": "norm of the latent vector, negated",
    "D": "the critic's score, negated",
    "L_k": "distance of the latent direction to its 5 nearest among training images",
}
"""The terms that `fused` joins, each the greater, the more anomalous."""
QUERIES = 1024
"""Queries that are compared with all known directions at a time: 80 MB for 20,000 of them."""


def directions(z_hat: Tensor) -> Tensor:
    """z_hat / ||z_hat||, N x N_z."""
    return z_hat / z_hat.norm(dim=1, keepdim=True).clamp_min(1e-12)


def direction_distance(z_hat: Tensor, known: Tensor, own: Tensor | None = None) -> Tensor:
    """L_k: the mean distance of z_hat / ||z_hat|| to its 5 nearest known directions, N.

    z_hat: N x N_z; known: M x N_z, of unit length. own: int64 N, the row of `known` that is the query itself and is
    left out; -1 where it is none. Searched by scalar products, then measured by differences, which do not lose digits
    where two directions are close. No loop over queries: for many, see `direction_distances`.
    """
    unit = directions(z_hat)
    likeness = unit @ known.T
    if own is not None:
        mine = torch.arange(len(known), device=own.device) == own.unsqueeze(1)
        likeness = likeness.masked_fill(mine, -torch.inf)
    nearest = likeness.topk(min(NEIGHBOURS, len(known) - (own is not None)), dim=1).indices
    return (known[nearest] - unit.unsqueeze(1)).norm(dim=2).mean(dim=1)


def unit_length(z_hat: np.ndarray) -> np.ndarray:
    """`directions` of an array."""
    return directions(torch.from_numpy(z_hat)).numpy()


def direction_distances(z_hat: np.ndarray, known: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """The same of arrays of any length, in bounded memory, on the GPU where there is one; float64 N."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    there = torch.from_numpy(known).to(device)
    parts = []
    for start in range(0, len(z_hat), QUERIES):
        some = torch.from_numpy(z_hat[start : start + QUERIES]).to(device)
        left_out = None if own is None else torch.from_numpy(own[start : start + QUERIES]).to(device)
        parts.append(direction_distance(some, there, left_out).cpu())
    return torch.cat(parts).numpy().astype(np.float64) if parts else np.zeros(0)


def fused(
    terms: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray], is_known: np.ndarray | None = None
) -> np.ndarray:
    """The sum of -log p over TERMS, with the p-value of each among the training images (Fisher's method), N.

    What is usual in one term does not excuse what is unusual in another; scales do not matter, and contamination
    moves ranks as little as its share. terms: of N queries; known: of the training images; is_known (bool N): a query
    is one of these, and is compared with the others.
    """
    return -np.sum([np.log(p_values(terms[name], known[name], is_known)) for name in TERMS], axis=0)
