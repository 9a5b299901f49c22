"""D: what the critic says of an image, which the paper drops at test time."""

from __future__ import annotations

from trainer.scoring.terms.base import Term

TERM = Term(
    "D",
    "the critic's score, negated",
    lambda response: -response.criticised,
    needs=("criticise",),
    has_say=False,  # Spearman's rho of a run's last checkpoints is .09 to .84, where other terms have .82 and more
)
