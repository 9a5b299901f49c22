"""python -m trainer train: in this process or on Ray workers."""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
from dataclasses import dataclass

from data_tools.errors import UserError
from data_tools.storage import absolute
from trainer.config import TrainConfig


@dataclass(frozen=True)
class Train:
    """Train a detector on a dataset."""

    config: TrainConfig

    def __call__(self) -> None:
        train(self.config)


def train(config: TrainConfig) -> None:
    """Train, or go on with an unfinished run of the same configuration; UserError for what the user can fix.

    In this process, or on Ray workers where `config.workers` says so.
    """
    from trainer.run.folder import as_begun, prepare, withdraw

    # Ray's workers run in folders of their own, and an evaluation may be started from another one.
    places = ("data", "out", "cache", "start_from", "exclude")
    config = dataclasses.replace(config, **{name: absolute(getattr(config, name)) for name in places})
    config = as_begun(config) if config.out else config
    state = prepare(config)
    if state == "finished":
        print(f"{config.out}: this run is finished - evaluate it with: python -m trainer evaluate {config.out}")
        return
    try:
        if config.worker_range()[1]:
            from trainer.on_ray.worker import train_on_ray

            train_on_ray(config)
        else:
            _train_here(config)
    except (UserError, OSError) as error:
        if state == "new":
            withdraw(config.out, error)
        raise
    print(f"finished: {config.out}\nnext: python -m trainer evaluate {config.out}")


def _train_here(config: TrainConfig) -> None:
    """Train in this process; SIGTERM, by which machines announce that they go, is answered by a checkpoint."""
    from trainer.training import loop

    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        loop.train(config, loop.Hooks(stopped=told.is_set))
    finally:
        signal.signal(signal.SIGTERM, before)
    if told.is_set():
        sys.exit(128 + signal.SIGTERM)
