"""By what images are judged, and above what they are called anomalous. Without torch: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from data_tools.commands.options import Number
from data_tools.errors import UserError
from data_tools.headings import UNSET
from trainer.scoring import PAPER_LAMBDA

if TYPE_CHECKING:
    from trainer.methods.base import Method


AUTO = "auto"
"""A contamination that is estimated; see junk_share.py."""


@dataclass(frozen=True)
class ShareCriterion:
    """By what images are judged, and which share of them is called anomalous."""

    by: str = "fused"
    """fused: all terms, calibrated on the training images; reviewed: the same, weighed by what was decided in a review;
    a: the paper's score; or one term by its name, as L_n."""
    lam: Annotated[float, tyro.conf.arg(name="lambda")] = PAPER_LAMBDA
    """lambda in a = lambda L_n + (1 - lambda) L_o."""
    false_alarms: Number = None
    """Call images anomalous so that at most this share of normal ones is."""
    contamination: Annotated[float | Literal["auto"] | None, UNSET] = None
    """Call images anomalous by the share of anomalies that is expected among the training images; auto: by an estimate
    of it, where one can be made."""


@dataclass(frozen=True)
class Criterion(ShareCriterion):
    """By what images are judged, and above what they are called anomalous."""

    threshold: Number = None
    """Call images anomalous when the score is above this."""

    def check(self) -> None:
        """UserError for a score that no method has, a lambda out of range, and more than one kind of threshold."""
        from trainer.methods import METHODS

        scores = dict.fromkeys(name for method in METHODS.values() for name in method.scores())
        if self.by not in scores:
            raise UserError(f"--by {self.by} is unknown - give one of {', '.join(scores)}")
        if not 0 <= self.lam <= 1:
            raise UserError(f"--lambda {self.lam} is outside [0, 1] - give e.g. 0.05")
        if sum(given is not None for given in (self.false_alarms, self.contamination, self.threshold)) > 1:
            raise UserError("--false-alarms, --contamination and --threshold exclude one another - give one")

    def check_fits(self, method: Method) -> None:
        """UserError where a method has no such score."""
        if self.by not in method.scores():
            known = ", ".join(method.scores())
            raise UserError(f"--by {self.by}: --method {method.name()} has no such score - give one of {known}")

    @property
    def is_plain(self) -> bool:
        """Whether it does without what the training images say, and so without the dataset."""
        return self.by == "a" and self.false_alarms is None and self.contamination is None
