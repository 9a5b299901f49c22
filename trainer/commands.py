"""The commands of `python -m trainer`, as plain functions of their options."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
from dataclasses import dataclass

import tyro
from rich.console import Console
from rich.table import Table

from data_tools.cache import DEFAULT_LIMIT, open_cache
from data_tools.errors import UserError
from data_tools.reader import open_dataset
from data_tools.storage import absolute
from trainer.checkpoint import checkpoint_names, chosen_checkpoint, read_info
from trainer.config import TrainConfig
from trainer.detector import AnomalyDetector
from trainer.evaluation import check_fits, has_labels, score_table
from trainer.report import result_rows, write_report
from trainer.run_folder import discard, prepare, read_config


def train_command(config: TrainConfig) -> None:
    """Train, in this process or on Ray workers."""
    # Ray's workers run in folders of their own, and an evaluation may be started from another one.
    paths = {name: absolute(getattr(config, name)) for name in ("data", "out", "cache", "start_from", "exclude")}
    config = dataclasses.replace(config, **paths)
    state = prepare(config)
    if state == "finished":
        print(f"{config.out}: this run is finished - evaluate it with: python -m trainer evaluate {config.out}")
        return
    try:
        if config.worker_range()[1]:
            from trainer.worker import train_on_ray

            train_on_ray(config)
        else:
            _train_here(config)
    except (UserError, OSError):
        if state == "new" and not checkpoint_names(config.out):
            discard(config.out)  # it was new or empty, so all in it is ours and of no use
        raise
    print(f"finished: {config.out}\nnext: python -m trainer evaluate {config.out}")


def _train_here(config: TrainConfig) -> None:
    """Train in this process; SIGTERM, by which machines announce that they go, is answered by a checkpoint."""
    from trainer.loop import Surroundings, train

    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        train(config, Surroundings(stopped=told.is_set))
    finally:
        signal.signal(signal.SIGTERM, before)
    if told.is_set():
        sys.exit(128 + signal.SIGTERM)


@dataclass(frozen=True)
class Evaluate:
    """Score the test set of a run's dataset; write the score table, figures and a report page."""

    run: tyro.conf.Positional[str]
    """The run's URL."""
    best: bool = False
    """The best checkpoint instead of the newest."""
    data: str = ""
    """Another dataset than the one trained on."""
    cache: str = ""
    """Folder for decoded images on this node (default: the user's cache folder)."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; what was used for longest goes first."""

    def __call__(self) -> None:
        config, _ = read_config(self.run)
        info = read_info(chosen_checkpoint(self.run, self.best))
        detector = AnomalyDetector.from_checkpoint(info, with_critic=True)
        url = self.data or config.data
        dataset = open_dataset(url, open_cache(self.cache, self.cache_limit))
        check_fits(detector, dataset, url)
        if not has_labels(dataset):
            raise UserError(
                f"{url}: has no labelled test images of both kinds, so there is no AUC "
                f"- rank images with: python -m trainer score {self.run} IMAGES --out scores.csv"
            )
        table = score_table(detector, dataset)
        page = write_report(self.run, info, detector, dataset, table)
        lines = Table(title=f"AUC after {info.images_seen:,} images at {info.resolution}x{info.resolution}")
        for heading in ("score", "AUC", ""):
            lines.add_column(heading)
        for row in result_rows(table):
            lines.add_row(row.name, f"{row.auc:.3f}", row.note)
        Console(width=None if os.isatty(1) else 100).print(lines)
        print(f"report: {page}")
