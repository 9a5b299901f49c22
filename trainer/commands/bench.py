"""`python -m trainer bench`: how fast a run would be, where its time goes, how near that is to the hardware."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Annotated, Any

from data_tools.errors import UserError
from data_tools.headings import UNSET
from data_tools.storage import open_storage, read_document, write_bytes
from trainer.config import TrainConfig
from trainer.schedule import Phase


@dataclass(frozen=True)
class Bench:
    """Measure the steps of a training run, whose options these are; --data may be left out, and nothing is kept."""

    config: TrainConfig
    seconds: float = 3.0
    """Seconds that each of three measurements of each phase takes, roughly."""
    only: Annotated[tuple[int, ...], UNSET] = ()
    """Resolutions to measure. (default: all)"""
    channels: int = 1
    """Channels of the images when no dataset is given."""
    cores: int = 0
    """CPU cores that each worker is pinned to, on Linux; 0: an equal share of those there are, and not pinned."""
    json: Annotated[str, UNSET] = ""
    """File for the figures."""
    against: Annotated[str, UNSET] = ""
    """An earlier --json file to compare with."""

    def __call__(self) -> None:
        from rich.console import Console

        from trainer.bench.table import compare, show
        from trainer.bench.workers import Work, measured

        self.config.validated()
        earlier = _read(self.against) if self.against else None
        if not self.seconds > 0:
            raise UserError(f"--seconds {self.seconds} is not positive - give e.g. 3")
        workers = max(self.config.worker_range()[1], 1)
        self._check_resources(workers)
        work = Work(self.config, self._phases(), workers, self.cores, self.channels, self.seconds)
        result = measured(work)
        console = Console(width=None if os.isatty(1) else 160)
        show(result, console)
        if earlier:
            compare(result, earlier, console)
        if self.json:
            folder, name = _split(self.json)
            write_bytes(open_storage(folder), name, (json.dumps(result, indent=2) + "\n").encode())

    def _check_resources(self, workers: int) -> None:
        import torch

        from trainer.bench.machine import cores

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
        if gpus is not None and workers > gpus:
            raise UserError(f"--workers {workers} need a GPU each, and there are {gpus} - give fewer")
        each = self.cores or (1 if gpus is None else 0)
        if each * workers > len(cores()):
            raise UserError(
                f"--workers {workers} with {each} core(s) each are more than the {len(cores())} there are"
                " - lower --workers or --cores"
            )
        if self.cores and not hasattr(os, "sched_setaffinity"):
            raise UserError(f"--cores {self.cores}: this system pins no process to cores - leave it out")

    def _phases(self) -> list[Phase]:
        phases = [phase for phase in self.config.schedule() if not self.only or phase.resolution in self.only]
        if not phases:
            known = ", ".join(str(r) for r in sorted({phase.resolution for phase in self.config.schedule()}))
            raise UserError(
                f"--only {' '.join(map(str, self.only))}: this training run has {known} - give some of these"
            )
        return phases


def _split(url: str) -> tuple[str, str]:
    """A file's folder and its name."""
    folder, slash, name = url.rpartition("/")
    return folder + slash if slash else ".", name


def _read(url: str) -> dict[str, Any]:
    """An earlier measurement; UserError when it is none."""
    folder, name = _split(url)
    try:
        result = read_document(open_storage(folder), name)
        return {"machine": result["machine"], "config": result["config"], "phases": result["phases"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--against {url}: no measurement ({error}) - give a file that --json wrote") from None
