"""toy_contrast: how much an image's pixels differ among themselves, whatever the networks say."""

from __future__ import annotations

from trainer.scoring.terms.base import Term

TERM = Term(
    "toy_contrast",
    "standard deviation of the image's pixels",
    lambda response: response.queries.flatten(1).std(dim=1),
)
