"""python -m tuning compare: which method for one dataset, without labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from data_tools.commands.options import CacheOptions, Caching
from data_tools.errors import UserError
from data_tools.headings import UNSET
from data_tools.storage import absolute
from tuning.config import METHODS

SURE = 0.9
"""Share of resamples from which on the choice is called sure."""


@dataclass(frozen=True)
class Compare:
    """Train several methods on one dataset, by two seeds or more, and rank them without labels.

    Ranked by how well what a method has learned tells synthetic anomalies from the images they were made from, which no
    training run saw, times how far its seeds agree on them, and for a classifier times how much of its task it knows.
    What to use is the best and those that come near it, as one detector. With labelled test images the table says how
    good the choice was. The same command goes on where it was stopped; more methods may join.
    """

    data: str
    """The dataset: the URL that data_tools wrote to."""
    out: str
    """The result's URL, a folder or s3://."""
    preset: str = "study"
    """The preset whose options a run starts from."""
    method: Annotated[str, tyro.conf.arg(help="Methods, separated by commas: " + ", ".join(METHODS) + ".")] = (
        "proposed,geom,ae,svdd"
    )
    seed: str = "0,1"
    """Seeds, separated by commas; two or more."""
    gamma: float = 0.0
    """For experiments: the share of labelled anomalies planted among the images."""
    set: Annotated[tuple[str, ...], UNSET] = ()
    """Further options of the training runs, NAME=VALUE each."""
    workers: str = "0"
    """Ray Train workers of a training run; 0 trains in this process."""
    caching: Caching = field(default_factory=CacheOptions)

    def __call__(self) -> None:
        from data_tools.storage import open_storage, write_bytes
        from tuning.compare import TABLE, Candidates, compare, joined, joined_auc
        from tuning.sweep_files import csv_text

        try:
            seeds = tuple(int(word) for word in self.seed.split(","))
        except ValueError:
            raise UserError(f"--seed {self.seed} is not a list of integers - give e.g. 0,1") from None
        cache = self.caching
        candidates = Candidates(
            absolute(self.data),
            absolute(self.out),
            self.preset,
            tuple(self.method.split(",")),
            seeds,
            self.gamma,
            self.set,
            self.workers,
            absolute(cache.cache),
            cache.cache_limit,
        ).checked()
        rows = compare(candidates)
        head = ["method", "merit", "separation", "agreement", "known", "first", "minutes", "auc"]
        cells = [[r.method, r.merit, r.separation, r.agreement, r.known, r.first, r.minutes, r.auc] for r in rows]
        write_bytes(open_storage(candidates.out), TABLE, csv_text(head, cells).encode())
        for line in _table(rows):
            print(line)
        best = rows[0]
        sure = "surely" if best.first >= SURE else "perhaps"
        print(f"{best.method} is {sure} the best here: first in {best.first:.0%} of resamples")
        if best.auc is not None:
            most = max(rows, key=lambda row: row.auc or 0)
            print(f"by labels {most.method} is, with an AUC of {most.auc:.3f}; {best.method} has {best.auc:.3f}")
        together = joined(rows)
        said = f"so use {', '.join(together)} as one detector"
        if (auc := joined_auc(candidates, together)) is not None:
            said += f", with an AUC of {auc:.3f}"
        print(f"{said}: python -m trainer audit {','.join(candidates.runs(together))} --out AUDIT")


def _table(rows: list) -> list[str]:
    """For the terminal."""

    def cell(value: float | None) -> str:
        return f"{'':>10}" if value is None else f"{value:>10.3f}"

    head = ("merit", "separation", "agreement", "known", "first", "minutes", "auc")
    lines = [f"{'method':<18}" + "".join(f"{name:>11}" for name in head)]
    for row in rows:
        values = (row.merit, row.separation, row.agreement, row.known, row.first, row.minutes, row.auc)
        lines.append(f"{row.method:<18}" + "".join(" " + cell(value) for value in values))
    return lines
