"""python -m tuning resume."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import tyro

from data_tools.errors import UserError
from data_tools.storage import absolute


@dataclass(frozen=True)
class Resume:
    """Go on with a sweep, by its own plan."""

    sweep: tyro.conf.Positional[str]
    """The sweep's URL: the --out of python -m tuning sweep."""

    def __call__(self) -> None:
        from tuning.config import SweepConfig
        from tuning.plan import read_plan
        from tuning.sweep import run_sweep

        url = absolute(self.sweep)
        if (plan := read_plan(url)) is None:
            raise UserError(f"{url}: is not a sweep (it has no plan.json) - give the --out of python -m tuning sweep")
        run_sweep(dataclasses.replace(SweepConfig.from_json(plan["sweep"]), out=url))
