"""What a page shows: some of the images in some order, fixed while it is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_tools.errors import UserError
from trainer.review.table import Table
from trainer.run.decisions import CHOICES, Decisions

SCORE, ALL = "score", "all"


@dataclass(frozen=True)
class View:
    """by: score, or a term, the greatest first; decided: all, or one choice; group: of look-alikes, -1 for all.

    column, value: what must be known of an image's origin, "" for anything; text: what its key holds.
    """

    by: str = SCORE
    decided: str = ALL
    column: str = ""
    value: str = ""
    group: int = -1
    text: str = ""

    def of(self, table: Table, decisions: Decisions, groups: np.ndarray | None) -> np.ndarray:
        """The images, int64; groups: of the worst ones, by `table.order`. UserError for what is not there."""
        if self.by not in (SCORE, *table.terms):
            raise UserError(f"by {self.by!r:.40}: is not a term - give one of {', '.join((SCORE, *table.terms))}")
        if self.decided not in (ALL, *CHOICES):
            raise UserError(f"decided {self.decided!r:.40}: give one of {', '.join((ALL, *CHOICES))}")
        if self.column and self.column not in table.origins:
            raise UserError(f"column {self.column!r:.40}: is not known of these images")
        order = table.order if self.by == SCORE else np.argsort(-table.terms[self.by], kind="stable")
        kept = np.ones(len(order), bool)
        if self.column:
            kept &= (table.origins[self.column] == self.value).to_numpy()
        if self.group >= 0:
            there = table.order[: len(groups)] if groups is not None else np.zeros(0, np.int64)
            kept &= np.isin(np.arange(len(order)), there[groups == self.group])
        if self.decided != ALL:
            kept &= self._decided(table, decisions)
        if self.text:
            kept &= table.keys.str.contains(self.text, regex=False).to_numpy()
        return order[kept[order]]

    def _decided(self, table: Table, decisions: Decisions) -> np.ndarray:
        with decisions.lock:
            known = {table.number[key]: each.choice for key, each in decisions.latest.items() if key in table.number}
        if self.decided == CHOICES[-1]:
            is_open = np.ones(len(table), bool)
            is_open[[i for i, choice in known.items() if choice != self.decided]] = False
            return is_open
        result = np.zeros(len(table), bool)
        result[[i for i, choice in known.items() if choice == self.decided]] = True
        return result
