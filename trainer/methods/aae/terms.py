"""What an adversarial autoencoder says of an image, as terms (Beggel et al. 2019)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainer.methods.ae.step import squared_errors
from trainer.scoring.terms.base import Compared, Response, Term

LEVELS = 100
"""Of ranks that are told apart among training images."""


def _unlikely(response: Response) -> Tensor:
    """-log p(z) up to a constant, of p = N(0, I): ||z||^2 / 2. A large norm is anomalous, unlike the paper's L_o."""
    codes = response.shared(lambda: response.trained.networks["encoder"](response.queries), "codes")
    return 0.5 * codes.float().square().sum(dim=1)


def _both(response: Response) -> Tensor:
    return torch.stack([squared_errors(response.queries, response.matches), _unlikely(response)], dim=1)


def quantiles(rows: np.ndarray) -> np.ndarray:
    """What is kept of n rows, n x 2: LEVELS + 1 quantiles of each column, from the least to the greatest; float32."""
    return np.quantile(rows.astype(np.float64), np.linspace(0, 1, LEVELS + 1), axis=0).astype(np.float32)


def greater_rank(rows: Tensor, known: Tensor, own: Tensor | None = None) -> Tensor:
    """The greater of two ranks, each the share of training images below: rows N x 2, known of `quantiles`, to N.

    So an image is above a threshold where either of its values is: Beggel's rule, at every threshold at once. Between
    quantiles ranks are interpolated; beyond the greatest they go on by how far, in distances of that to the median.
    own changes nothing: one image of many hardly moves a quantile.
    """
    steps = (known[1:] - known[:-1]).clamp_min(torch.finfo(known.dtype).tiny)
    passed = ((rows[:, None] - known[:-1]) / steps).clamp(0, 1).mean(dim=1)
    middle, last = known[LEVELS // 2], known[-1]
    beyond = (rows - last).clamp_min(0) / (last - middle).clamp_min(1e-12)
    return (passed + beyond).amax(dim=1)


CODE = Term("code", "how unlikely an image's code is: half the square of its norm", _unlikely)
JOINT = Compared(
    "joint",
    "the greater of two ranks among training images, of the error and of the code",
    _both,
    needs=("reconstruct",),
    has_say=False,  # it is made of the other two
    kept_as="errors_and_codes",
    kept=quantiles,
    distance=greater_rank,
    row_each=False,
)
