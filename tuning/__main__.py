"""python -m tuning sweep | resume | report"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass

import tyro

from data_tools.dataset.cache import DEFAULT_LIMIT
from data_tools.errors import UserError, run_command
from data_tools.storage import absolute

USAGE = """usage: python -m tuning COMMAND ...

  sweep   train one detector per method, gamma and seed   --data URL --out SWEEP --preset NAME [options]
  resume  go on with a sweep                              SWEEP
  report  tables and figures as one page                  SWEEP ... --out REPORT

python -m tuning COMMAND --help lists the options."""


@dataclass(frozen=True)
class Report:
    """Tables and figures of sweeps as one page that needs nothing else, and the CSVs behind them."""

    sweeps: tyro.conf.Positional[tuple[str, ...]]
    """The sweeps' URLs."""
    out: str = "report"
    """Where the page goes, a folder or s3://."""
    without_pixels: tuple[str, ...] = ()
    """Sweeps, among those above, whose images must not be shown."""
    cache: str = ""
    """Folder for decoded images on this node (default: the user's cache folder)."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; what was used for longest goes first."""

    def __call__(self) -> None:
        from tuning.report.page import write_report

        if not self.sweeps:
            raise UserError("no sweep is given - give the --out of python -m tuning sweep")
        page = write_report(list(self.sweeps), self.out, list(self.without_pixels), self.cache, self.cache_limit)
        print(f"report: {page}")


def main(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    command, *words = argv
    prog = f"python -m tuning {command}"
    if command == "sweep":
        from tuning.config import SweepConfig
        from tuning.sweep import run_sweep

        config = tyro.cli(SweepConfig, args=words, prog=prog)
        # Ray's workers run in folders of their own.
        paths = {name: absolute(getattr(config, name)) for name in ("data", "out", "cache")}
        run_sweep(dataclasses.replace(config, **paths))
    elif command == "resume":
        if len(words) != 1 or words[0] in ("-h", "--help"):
            print("usage: python -m tuning resume SWEEP\n\nGo on with the sweep whose --out this was, by its own plan.")
            return
        _resume(absolute(words[0]))
    elif command == "report":
        tyro.cli(Report, args=words, prog=prog)()
    else:
        raise UserError(f"{command}: no such command - choose sweep, resume or report")


def _resume(url: str) -> None:
    from tuning.config import SweepConfig
    from tuning.plan import read_plan
    from tuning.sweep import run_sweep

    if (plan := read_plan(url)) is None:
        raise UserError(f"{url}: is no sweep (it has no plan.json) - give the --out of python -m tuning sweep")
    run_sweep(dataclasses.replace(SweepConfig.from_json(plan["sweep"]), out=url))


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
