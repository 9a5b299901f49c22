"""L_o: the norm of the latent vector, negated (Berg et al. 2019, eq. 4)."""

from __future__ import annotations

import math

from torch import Tensor

from trainer.scoring.terms.base import Term


def negated_norm(z_hat: Tensor) -> Tensor:
    """L_o = -||z_hat||_2 / sqrt(N_z) (eq. 4), N."""
    return -z_hat.norm(dim=1) / math.sqrt(z_hat.shape[1])


TERM = Term(
    "L_o",
    "norm of the latent vector, negated",
    lambda response: negated_norm(response.z_hat),
    needs=("encode",),
    has_say=False,  # it says nothing of synthetic anomalies on any set, and differs from seed to seed
)
