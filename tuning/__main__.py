"""python -m tuning: many detectors, and what they say together."""

from __future__ import annotations

import functools
import sys

from data_tools.command_line import Command, Program, run, run_program

PROGRAM = Program(
    "tuning",
    "Train many detectors and compare them.",
    {
        "": (
            Command(
                "sweep",
                "--data URL --out SWEEP --preset NAME",
                "train one detector per method, gamma and seed",
                "tuning.commands.sweep:Sweep",
                "tuning.commands.sweep:with_options",
            ),
            Command(
                "clean",
                "--data URL --out RESULT",
                "find the junk in a dataset by rounds of training and leaving out",
                "tuning.commands.clean:Clean",
            ),
            Command(
                "compare",
                "--data URL --out RESULT",
                "train several methods on one dataset and rank them without labels",
                "tuning.commands.compare:Compare",
            ),
            Command("resume", "SWEEP", "go on with a sweep", "tuning.commands.resume:Resume"),
            Command(
                "report", "SWEEP ... --out REPORT", "tables and figures as one page", "tuning.commands.report:Report"
            ),
        )
    },
)
main = functools.partial(run, PROGRAM)

if __name__ == "__main__":
    sys.exit(run_program(PROGRAM, sys.argv[1:]))
