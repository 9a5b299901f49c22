"""What GEOM's classifier says of an image's views, as terms: the less sure of the right transform, the more anomalous.

Dirichlet and softmax are Golan and El-Yaniv's two scores (2018), entropy is E3Outlier's (Wang et al. 2019).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from trainer.methods.base import Trained
from trainer.methods.geom.dirichlet import log_density
from trainer.methods.geom.transforms import all_views, maps_on
from trainer.scoring.terms.base import Response, Term

QUERIES = 8
"""Whose views go through the classifier at a time: more need memory, and are no faster."""


def log_answers(trained: Trained, queries: Tensor) -> Tensor:
    """Queries N x C x r x r to log p, N x T x T: of each view, a row, what the classifier says of its transform."""
    options: Any = getattr(trained.config, "geom")  # noqa: B009
    maps = maps_on(options.transforms, trained.resolution, queries.device)
    classifier = trained.networks["classifier"]
    parts = [queries] if torch.compiler.is_exporting() else queries.split(QUERIES)
    result = [classifier(all_views(some, maps)).log_softmax(dim=1).view(-1, len(maps), len(maps)) for some in parts]
    return result[0] if len(result) == 1 else torch.cat(result)


def _answers(response: Response) -> Tensor:
    return response.shared(lambda: log_answers(response.trained, response.queries), "log_answers")


def _dirichlet(response: Response) -> Tensor:
    alphas: Any = response.trained.networks["usual"].alphas
    return -log_density(_answers(response), alphas).mean(dim=1)


def _softmax(response: Response) -> Tensor:
    return -_answers(response).diagonal(dim1=1, dim2=2).exp().mean(dim=1)


def _entropy(response: Response) -> Tensor:
    answers = _answers(response)
    return -(answers.exp() * answers).sum(dim=2).mean(dim=1) / math.log(2)


DIRICHLET = Term(
    "dirichlet", "how unlikely the classifier's answers are, compared with those for training images", _dirichlet
)
SOFTMAX = Term("softmax", "how unsure the classifier is of the right transform", _softmax)
ENTROPY = Term("entropy", "how unsure the classifier is of any transform: its answers' mean entropy in bits", _entropy)
