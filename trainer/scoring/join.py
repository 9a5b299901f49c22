"""From terms to one score: Fisher's sum over calibrated terms, the paper's a, or one term."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from trainer.scoring import PAPER_LAMBDA
from trainer.scoring.p_values import p_values

FUSED = "fused"
"""What `fused` is called in tables, and by --by."""
REVIEWED = "reviewed"
"""The same sum with weights that decisions gave, see reviewed.py."""
SUMMED = (FUSED, REVIEWED)
WEIGHTED = ("L_n", "L_o")
"""The terms of a."""


def anomaly(L_n: Any, L_o: Any, lam: Any = PAPER_LAMBDA) -> Any:
    """a = lambda L_n + (1 - lambda) L_o (Berg et al. 2019, eq. 5), of arrays that broadcast."""
    return lam * L_n + (1 - lam) * L_o


def lambda_grid() -> np.ndarray:
    """0, the paper's 0.05, 1, and a grid uniform in logit: L_n is so small that the interesting lambdas lie near 1."""
    logit = np.linspace(-4, 14, 145)
    return np.unique(np.concatenate([[0.0, PAPER_LAMBDA, 1.0], 1 / (1 + np.exp(-logit))]))


def has_a(names: Collection[str]) -> bool:
    """Whether a method with these terms has the score a."""
    return set(WEIGHTED) <= set(names)


def weights(by: str, lam: float) -> dict[str, float]:
    """The score `by`, which is none of `SUMMED`, as weights of terms."""
    return {"L_n": anomaly(1.0, 0.0, lam), "L_o": anomaly(0.0, 1.0, lam)} if by == "a" else {by: 1.0}


def fused(
    terms: Mapping[str, np.ndarray],
    known: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    is_known: np.ndarray | None = None,
) -> np.ndarray:
    """The weighted sum of -log p over the known terms, with the p-value of each among the training images, N.

    Fisher's method where all weights are 1 (with others, Good 1955). What is usual in one term does not excuse what
    is unusual in another; scales do not matter, and contamination moves ranks as little as its share. terms: of N
    queries; known: of the training images; weights: at least 0, see trust.py; is_known (bool N): a query is one of
    these, and is compared with the others.
    """
    logs = [weights[name] * np.log(p_values(terms[name], column, is_known)) for name, column in known.items()]
    return -np.sum(logs, axis=0)
