"""ADGAN's search: each start of each query moves a latent vector and a copy of the generator's weights, at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap

Weights = dict[str, Tensor]
BETAS, EPSILON = (0.5, 0.999), 1e-8
"""Adam's."""


def distances_left(
    queries: Tensor,
    generate: Callable[[Weights, Tensor], Tensor],
    weights: Weights,
    starts: Tensor,
    steps: int,
    latent_rate: float,
    weight_rate: float,
) -> Tensor:
    """Mean squared differences of queries and what each start makes after `steps` updates by Adam: N x K.

    queries: N x C x r x r; generate: weights and one z to one image; weights: where all begin; starts: K x N_z, the
    same for every query, so that a query's result does not depend on its neighbours.
    """

    def distance(own: Weights, z: Tensor, query: Tensor) -> Tensor:
        return (generate(own, z) - query).square().mean()

    per_start = (0, 0, None)  # weights, latent vectors, query
    slopes = vmap(vmap(grad(distance, argnums=(0, 1)), in_dims=per_start))
    values = vmap(vmap(distance, in_dims=per_start))
    lead = (len(queries), len(starts))
    z = starts.expand(*lead, -1)
    own = {name: each.expand(*lead, *each.shape) for name, each in weights.items()}
    of_z = _Adam(latent_rate)
    of_weights = {name: _Adam(weight_rate) for name in own}
    for _ in range(steps):
        weight_slopes, z_slopes = slopes(own, z, queries)
        z = of_z.moved(z, z_slopes)
        own = {name: of_weights[name].moved(each, weight_slopes[name]) for name, each in own.items()}
    return values(own, z, queries)


class _Adam:
    """Adam's moments of one tensor, element by element, of which each start has its own part."""

    def __init__(self, rate: float) -> None:
        self.rate, self.step = rate, 0
        self.mean = self.square = torch.zeros(())

    def moved(self, values: Tensor, slope: Tensor) -> Tensor:
        self.step += 1
        first, second = BETAS
        self.mean = first * self.mean + (1 - first) * slope
        self.square = second * self.square + (1 - second) * slope.square()
        mean, square = self.mean / (1 - first**self.step), self.square / (1 - second**self.step)
        return values - self.rate * mean / (square.sqrt() + EPSILON)
