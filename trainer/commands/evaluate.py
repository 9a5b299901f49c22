"""python -m trainer evaluate: score the test set of a run's dataset."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from data_tools.commands.options import CacheOptions, Caching
from data_tools.errors import UnreachableError, UserError
from trainer.commands.shared import Best

if TYPE_CHECKING:
    from trainer.run.checkpoint import CheckpointInfo
    from trainer.scoring.detector import Detector
    from trainer.scoring.inference import Inference


@dataclass(frozen=True)
class Evaluate:
    """Score the test set of a run's dataset; write the score table, figures and a report page."""

    run: tyro.conf.Positional[str]
    """The run's URL; of RUN,RUN,... as one detector the AUCs are printed, and no page is written."""
    best: Best = False
    data: Annotated[str, tyro.conf.arg(help_behavior_hint="(default: the run's own)")] = ""
    """A dataset other than the one trained on."""
    caching: Caching = field(default_factory=CacheOptions)

    def __call__(self) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        from data_tools.dataset.reader import open_dataset
        from trainer.report.page import kind_rows, result_rows, write_report
        from trainer.run.checkpoint import chosen_checkpoint, read_info
        from trainer.run.folder import read_config
        from trainer.run.recoveries import warn_of_given_up
        from trainer.scoring.evaluation import check_fits, has_labels, score_table
        from trainer.scoring.inference import Inference
        from trainer.scoring.loading import runs_in

        if len(runs_in(self.run)) > 1:
            return self._several()
        warn_of_given_up(self.run)
        config, _ = read_config(self.run)
        info = read_info(chosen_checkpoint(self.run, self.best))
        inference = Inference.from_checkpoint(info)
        url = self.data or config.data
        dataset = open_dataset(url, self.caching.open())
        check_fits(inference, dataset, url)
        if not has_labels(dataset):
            raise UserError(
                f"{url}: has no labelled test images of both kinds, so there is no AUC "
                f"- rank images with: python -m trainer score {self.run} IMAGES --out scores.csv"
            )
        table = score_table(inference, dataset, detector=self._calibrated(inference, info))
        page = write_report(self.run, info, inference, dataset, table)
        lines = Table(title=f"AUC after {info.images_seen:,} images at {info.resolution}x{info.resolution}")
        for heading in ("score", "AUC", ""):
            lines.add_column(heading)
        for row in result_rows(inference, table):
            lines.add_row(row.name, f"{row.auc:.3f}", row.note)
        console = Console(width=None if os.isatty(1) else 100)
        console.print(lines)
        if kinds := kind_rows(info, table):
            lines = Table(title=f"AUC of {next(iter(table.scores.terms))} by class of the anomalies")
            for heading in ("class", "images", "AUC", ""):
                lines.add_column(heading)
            for kind in kinds:
                lines.add_row(escape(kind.name), str(kind.images), f"{kind.auc:.3f}", kind.note)
            console.print(lines)
        print(f"report: {page}")

    def _several(self) -> None:
        """The AUC of several runs as one detector, and of each by itself."""
        from rich.console import Console
        from rich.table import Table

        from data_tools.dataset.reader import open_dataset
        from trainer.run.folder import read_config
        from trainer.scoring.evaluation import auc, has_labels, test_images
        from trainer.scoring.loading import load_detector, runs_in

        cache, runs = self.caching, runs_in(self.run)
        detector = load_detector(self.run, None, self.best, cache.cache, cache.cache_limit)
        url = self.data or read_config(runs[0])[0].data
        dataset = open_dataset(url, cache.open())
        if not has_labels(dataset):
            raise UserError(f"{url}: has no labelled test images of both kinds, so no AUC - score images by it")
        images, labels = test_images(dataset)
        scored = detector.score(images)
        lines = Table(title=f"AUC of {len(runs)} runs as one detector")
        for heading in ("score", "AUC", ""):
            lines.add_column(heading)
        lines.add_row("fused", f"{auc(labels, scored.score):.3f}", "all runs, each calibrated by itself")
        for name, score in scored.terms.items():
            lines.add_row(name, f"{auc(labels, score):.3f}", "fused of this run alone")
        Console(width=None if os.isatty(1) else 100).print(lines)

    def _calibrated(self, inference: Inference, info: CheckpointInfo) -> Detector | None:
        """With what the training images say, on which `fused` rests; None, with a note, where they are not had."""
        from trainer.scoring.calibration import calibration_of
        from trainer.scoring.detector import Detector

        if not inference.method.ready(info.config, info.images_seen):
            return None
        cache = self.caching
        try:
            return Detector(inference, calibration=calibration_of(info, inference, cache.cache, cache.cache_limit))
        except UnreachableError:
            raise
        except UserError as error:
            print(f"note: without fused, which takes the run's training images: {error}", file=sys.stderr)
            return None
