"""Options that commands which take a run share, here and in cluster."""

from __future__ import annotations

from typing import Annotated

import tyro

RUN_HELP = "The run's URL, or one checkpoint's."
RUNS_HELP = f"{RUN_HELP[:-1]}; RUN,RUN,... take several runs on one dataset as one detector."
Runs = Annotated[str, tyro.conf.Positional, tyro.conf.arg(help=RUNS_HELP)]
Run = Annotated[str, tyro.conf.Positional, tyro.conf.arg(help=RUN_HELP)]
RunsOption = Annotated[str, tyro.conf.arg(name="run", help=RUNS_HELP)]
Data = Annotated[
    str,
    tyro.conf.arg(help="Where the run's dataset is now.", help_behavior_hint="(default: where it was trained on)"),
]
Best = Annotated[bool, tyro.conf.arg(help="The best checkpoint instead of the newest.")]
