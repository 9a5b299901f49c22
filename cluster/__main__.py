"""python -m cluster: where training runs, sweeps and detectors run."""

from __future__ import annotations

import functools
import sys

from data_tools.command_line import Command, Program, run, run_program

PROGRAM = Program(
    "cluster",
    "Run commands on a Ray cluster, and detectors for many images.",
    {
        "A Ray cluster on this machine": (
            Command("up", "", "start it, with dashboard, S3 store and TensorBoard", "cluster.commands.up:Up"),
            Command("status", "", "where it is, and what it does", "cluster.commands.status:Status"),
            Command("down", "", "end it", "cluster.commands.down:Down"),
        ),
        "On any cluster": (
            Command(
                "submit",
                "-- COMMAND ...",
                "send a command of ours as a job, follow it, exit with its status",
                "cluster.commands.submit:Submit",
                takes_command=True,
            ),
            Command(
                "score",
                "--run URL --images URL --out URL",
                "score any number of images",
                "cluster.commands.score:Score",
            ),
            Command("serve", "--run URL", "a run's detector over HTTP", "cluster.commands.serve:Serve"),
        ),
        "A real S3 store on this machine": (
            Command(
                "store",
                "FOLDER [-- COMMAND ...]",
                "until Ctrl-C, or while a command runs that finds it in its environment",
                "cluster.commands.store:Store",
                takes_command=True,
            ),
        ),
    },
    renamed={"--lam": "--lambda"},
)
main = functools.partial(run, PROGRAM)

if __name__ == "__main__":
    sys.exit(run_program(PROGRAM, sys.argv[1:]))
