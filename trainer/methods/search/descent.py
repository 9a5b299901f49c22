"""The search for a query's latent without an encoder, by gradient descent (Schlegl et al. 2017, AnoGAN)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def search(
    queries: Tensor,
    generate: Callable[[Tensor], Tensor],
    features: Callable[[Tensor], Tensor],
    starts: Tensor,
    steps: int,
    learning_rate: float,
    feature_weight: float = 0.1,
) -> Tensor:
    """For each query Q the z with the lowest (1 - w) sum |Q - G(z)| + w sum |f(Q) - f(G(z))|: N x N_z.

    queries: N x C x r x r; generate G: z to images; features f: images to N x F, the critic's. Both treat each sample
    by itself (batch norm in eval mode, minibatch-stddev groups of one).
    starts: K x N_z, one a restart (Deecke et al. 2018, ADGAN), the same for every query, so that a query's result
    does not depend on its neighbours. Each restart takes `steps` updates of Adam, and the lowest loss after the last
    update decides. feature_weight: w.
    All restarts of all queries are one batch of N * K. The networks' parameters and their gradients stay as they are.
    """
    restarts = len(starts)
    targets = queries.repeat_interleave(restarts, dim=0)
    with torch.no_grad():
        target_features = features(queries).repeat_interleave(restarts, dim=0)

    def losses(z: Tensor) -> Tensor:
        matches = generate(z)
        residual = (targets - matches).abs().flatten(1).sum(dim=1)
        discrimination = (target_features - features(matches)).abs().sum(dim=1)
        return (1 - feature_weight) * residual + feature_weight * discrimination

    z = starts.detach().repeat(len(queries), 1).requires_grad_(True)
    optimiser = torch.optim.Adam([z], lr=learning_rate, betas=(0.9, 0.999))
    for _ in range(steps):
        with torch.enable_grad():
            # of the sum, since each query's loss depends on its own z alone; and for z alone, not for the networks
            (z.grad,) = torch.autograd.grad(losses(z).sum(), z)
        optimiser.step()
    with torch.no_grad():
        best = losses(z).view(len(queries), restarts).argmin(dim=1)
    return z.detach().view(len(queries), restarts, -1)[torch.arange(len(queries), device=z.device), best]
