"""The values of lambda of a sweep: arithmetic on stored scores, never a training."""

from __future__ import annotations

import numpy as np

from data_tools.errors import UserError
from trainer.scoring.criterion import PAPER_LAMBDA
from trainer.scoring.evaluation import lambda_grid


def lambda_values(text: str) -> np.ndarray:
    """The values that words separated by commas stand for, ascending, each once: paper, grid, numbers in [0, 1]."""
    found: list[float] = []
    for word in text.split(","):
        if word == "paper":
            found.append(PAPER_LAMBDA)
        elif word == "grid":
            found += lambda_grid().tolist()
        else:
            found.append(_number(word))
    return np.unique(found)


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"--lambda {word} is no value of lambda - give paper, grid or numbers in [0, 1]")
    return value
