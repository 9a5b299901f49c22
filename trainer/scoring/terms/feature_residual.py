"""A: f-AnoGAN's score (Schlegl et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from trainer.scoring.terms.base import Term


def izi_f(queries: Tensor, matches: Tensor, critic_features: Callable[[Tensor], Tensor], kappa: float = 1.0) -> Tensor:
    """mean (Q - R)^2 + kappa * mean (f(Q) - f(R))^2, for each query: N.

    queries Q, matches R = G(E(Q)): N x C x r x r; critic_features f: images to N x F. Its mean over queries is the
    loss of f-AnoGAN's encoder, and each value is the query's score A: the greater, the more anomalous.
    """
    residual = (queries - matches).square().flatten(1).mean(dim=1)
    difference = (critic_features(queries) - critic_features(matches)).square().mean(dim=1)
    return residual + kappa * difference


TERM = Term(
    "A",
    "f-AnoGAN's score: residual of pixels and of the critic's features",
    lambda response: izi_f(response.queries, response.matches, response.features),
    needs=("reconstruct", "features"),
    joined=False,  # it takes two more passes of the critic
)
