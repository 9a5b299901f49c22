"""python -m tuning report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from data_tools.commands.options import CacheOptions, Caching
from data_tools.errors import UserError
from data_tools.headings import UNSET


@dataclass(frozen=True)
class Report:
    """Tables and figures of sweeps as one page that needs nothing else, and the CSVs behind them."""

    sweeps: Annotated[tyro.conf.Positional[tuple[str, ...]], UNSET]
    """The sweeps' URLs, and trials.csv of earlier reports, whose trials join the table of methods."""
    out: str = "report"
    """Where the page goes, a folder or s3://."""
    without_pixels: Annotated[tuple[str, ...], UNSET] = ()
    """Sweeps, among those above, whose images must not be shown."""
    caching: Caching = field(default_factory=CacheOptions)

    def __call__(self) -> None:
        from tuning.report.page import write_report

        if not self.sweeps:
            raise UserError("no sweep is given - give the --out of python -m tuning sweep")
        cache = self.caching
        page = write_report(list(self.sweeps), self.out, list(self.without_pixels), cache.cache, cache.cache_limit)
        print(f"report: {page}")
