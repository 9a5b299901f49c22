"""What a term is: a number of an image, made of what the networks make of it; the greater, the more anomalous."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainer.methods.base import Method, Trained

T = TypeVar("T")
CRITICS = {"criticise", "features"}
"""Hooks of the critic, whose terms are left out where a score has to be quick."""
RESIDUAL = "residual"
"""The family of terms that say how far an image is from its closest match."""


class Response:
    """What a method's networks make of N queries, each part computed when a term first asks for it."""

    def __init__(self, method: Method, trained: Trained, queries: Tensor) -> None:
        """queries: N x C x r x r, as the networks see them."""
        self.method, self.trained, self.queries = method, trained, queries
        self._shared: dict[str, Any] = {}

    @cached_property
    def z_hat(self) -> Tensor:
        """Latent vectors, N x N_z."""
        return self.method.encode(self.trained, self.queries)

    @cached_property
    def standardised(self) -> Tensor:
        """The queries, each by itself at the usual mean and contrast, N x C x r x r."""
        return self.trained.contrast.standardised(self.queries)

    @property
    def is_encoded(self) -> bool:
        """Whether a term has asked for the latent vectors."""
        return "z_hat" in vars(self)

    @cached_property
    def matches(self) -> Tensor:
        """Closest matches, N x C x r x r."""
        if self.method.has_own("reconstruct"):
            return self.method.reconstruct(self.trained, self.queries)
        return self.method.generate(self.trained, self.z_hat)

    @cached_property
    def criticised(self) -> Tensor:
        """The critic's scores, N."""
        return self.method.criticise(self.trained, self.queries)

    def shared(self, made: Callable[[], T], name: str) -> T:
        """What several terms of a method need and only one has to compute, by a name of its own."""
        if name not in self._shared:
            self._shared[name] = made()
        return self._shared[name]

    def to(self, queries: Tensor) -> Response:
        """That of the same networks to other queries."""
        return Response(self.method, self.trained, queries)

    def features(self, images: Tensor) -> Tensor:
        """The critic's features of other images, N x F."""
        return self.method.features(self.trained, images)


@dataclass(frozen=True)
class Term:
    """of: what it is of N queries, N. needs: the hooks of a method, without which it has no such term.

    joined: whether a calibration holds it, so that it can be the score. has_say: whether `fused` takes it: on the
    development sets it ranks images steadily, and adds to the others; see tuning/results/terms.md. is_trained: whether
    networks say it, so that synthetic anomalies tell what it is worth. family: terms of one family say the same in
    several ways, and share the weight of one; "" for one by itself.
    """

    name: str
    meaning: str
    of: Callable[[Response], Tensor]
    needs: tuple[str, ...] = ()
    joined: bool = True
    has_say: bool = True
    is_trained: bool = True
    family: str = ""

    @property
    def is_quick(self) -> bool:
        """Whether it does without the critic and without the training images, as what validates a checkpoint must."""
        return not CRITICS & set(self.needs)


@dataclass(frozen=True, kw_only=True)
class Compared(Term):
    """A term that compares a query with the training images, of which something is kept.

    of: the rows of N queries, N x K. kept_as: the name of what is kept in a calibration's file. kept: rows of n
    training images to what is kept of them, a matrix; row_each: it has a row for each of them. distance: of rows
    N x K and what is kept, N; the third argument, int64 N, says which of the n images the query itself is, -1 where it
    is none; `distances` are those of arrays of any length.
    """

    kept_as: str
    kept: Callable[[np.ndarray], np.ndarray]
    distance: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    row_each: bool = True

    @property
    def is_quick(self) -> bool:
        return False

    def distances(self, rows: np.ndarray, known: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
        """`distance` of arrays of any length, in bounded memory, on the GPU where there is one; float64 N."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        there = torch.from_numpy(known).to(device)
        parts = []
        for start in range(0, len(rows), QUERIES):
            some = torch.from_numpy(rows[start : start + QUERIES]).to(device)
            left_out = None if own is None else torch.from_numpy(own[start : start + QUERIES]).to(device)
            parts.append(self.distance(some, there, left_out).cpu())
        return torch.cat(parts).numpy().astype(np.float64) if parts else np.zeros(0)


QUERIES = 1024
"""Queries that are compared with all that is kept at a time: 80 MB for 20,000 rows."""
