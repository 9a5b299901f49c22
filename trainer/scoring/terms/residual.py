"""L_r: the plain residual."""

from __future__ import annotations

from trainer.scoring.terms.base import Term

TERM = Term(
    "L_r",
    "plain residual: ||Q - R||",
    lambda response: (response.queries - response.matches).flatten(1).norm(dim=1),
    needs=("reconstruct",),
    joined=False,  # L_n says the same, whatever the contrast
)
