"""L_k: how far an image's latent direction is from the nearest among training images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainer.scoring.terms.base import Compared

NEIGHBOURS = 5
BLOCK = 16
"""Values whose greatest is looked at first."""


def directions(z_hat: Tensor) -> Tensor:
    """z_hat / ||z_hat||, N x N_z."""
    return z_hat / z_hat.norm(dim=1, keepdim=True).clamp_min(1e-12)


def unit_length(z_hat: np.ndarray) -> np.ndarray:
    """`directions` of an array."""
    return directions(torch.from_numpy(z_hat)).numpy()


def greatest(values: Tensor, count: int) -> Tensor:
    """The places of the greatest values of each row, N x M to N x count: as of `topk`, in a third of its time.

    The greatest values lie in those blocks whose own greatest values are greatest; only these are searched. Block j of
    C has the columns j, j + C, j + 2 C, ..., so that all blocks' greatest values are found a row at a time.
    """
    columns = values.shape[1] // BLOCK
    if columns < 20 * count:  # with fewer, topk is as quick
        return values.topk(count, dim=1).indices
    whole = BLOCK * columns
    best = values[:, :whole].unflatten(1, (BLOCK, columns)).amax(dim=1).topk(count, dim=1).indices
    places = torch.arange(values.shape[1], device=values.device)
    inside = (best.unsqueeze(1) + places[:whole:columns].view(1, -1, 1)).flatten(1)
    searched = torch.cat([inside, places[whole:].expand(values.shape[0], -1)], dim=1)
    return searched.gather(1, values.gather(1, searched).topk(count, dim=1).indices)


def direction_distance(z_hat: Tensor, known: Tensor, own: Tensor | None = None) -> Tensor:
    """L_k: the mean distance of z_hat / ||z_hat|| to its 5 nearest known directions, N.

    z_hat: N x N_z; known: M x N_z, of unit length. own: int64 N, the row of `known` that is the query itself and is
    left out; -1 where it is none. Searched by scalar products, then measured by differences, which do not lose digits
    where two directions are close. No loop over queries: for many, see `Compared.distances`.
    """
    unit = directions(z_hat)
    likeness = unit @ known.T
    if own is not None:
        mine = torch.arange(len(known), device=own.device) == own.unsqueeze(1)
        likeness = likeness.masked_fill(mine, -torch.inf)
    nearest = greatest(likeness, min(NEIGHBOURS, len(known) - (own is not None)))
    return (known[nearest] - unit.unsqueeze(1)).norm(dim=2).mean(dim=1)


TERM = Compared(
    "L_k",
    "distance of the latent direction to its 5 nearest among training images",
    lambda response: response.z_hat,
    needs=("encode",),
    has_say=False,  # beside L_n and L_m it only dilutes
    kept_as="directions",
    kept=unit_length,
    distance=direction_distance,
)
