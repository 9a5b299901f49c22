"""python -m cluster score."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import tyro

from trainer.commands.shared import Best, Data, RunsOption
from trainer.scoring.criterion import Criterion

EARLY = 1
"""Exit status: there is a file that could not be read to its end."""


@dataclass(frozen=True)
class Score:
    """Score any number of images with a run's detector on a Ray cluster; the same command goes on after any end.

    Exits with 1 where a tar or a table could not be read to its end; what could be read is scored.
    """

    from_run: RunsOption
    images: str
    """URL of tars (compressed or not, of WebDataset or any), Parquet files or image files, at any depth."""
    out: str
    """URL for the scores: Parquet files."""
    best: Best = False
    data: Data = ""
    heatmaps: bool = False
    """Add a column: heat maps, as grey PNGs."""
    actors: int = 0
    """Processes that score; 0 for as many as the cluster has GPUs, or CPUs where it has none."""
    criterion: tyro.conf.OmitArgPrefixes[Criterion] = field(default_factory=Criterion)
    """The score, and the threshold above which an image is called anomalous: adds a column."""

    def __call__(self) -> None:
        from cluster.scoring import ScoringConfig, score_images

        config = ScoringConfig(
            self.from_run, self.images, self.out, self.best, self.criterion, self.heatmaps, self.actors, self.data
        )
        done = score_images(config)
        if done.units_before:
            print(f"{done.units_before} of {done.units} files were there already")
        rate = f", {done.images / done.seconds:,.0f} images/s" if done.images else ""
        early = f", {done.early:,} files ended early" if done.early else ""
        print(f"scored {done.images:,} images, {done.errors:,} of them with errors{early}{rate}: {self.out}")
        if done.masks or done.unread:
            passed = f"{done.masks:,} masks, {done.unread:,} images of formats that are not read"
            print(f"passed over: {passed}", file=sys.stderr)
        if done.early:
            raise SystemExit(EARLY)
