"""python -m trainer audit: a run's own training images ranked; the worst on a page, a list to train without."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import Annotated

import tyro

from data_tools.commands.options import CacheOptions, Caching
from data_tools.errors import UserError
from data_tools.storage import local_path
from trainer.commands.shared import Best, Data, Runs
from trainer.scoring.criterion import AUTO, Criterion, ShareCriterion

OURS = re.compile(r"audit\.csv|exclude\.txt|index\.html")


def _check_writable(place: str) -> None:
    """UserError where a local folder cannot be made or written to: better than after all images are scored."""
    folder = local_path(place)
    if folder is None:
        return
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there}: is not a folder that can be written to - give another --out")


@dataclass(frozen=True)
class Audit:
    """Rank a run's own training images, the most anomalous first; write the list, a page and an exclusion list.

    It says how many of them may be junk, where that can be told. Where neither --contamination nor --false-alarms is
    given, 2 % of the images are expected to be anomalous.
    """

    run: Runs
    out: Annotated[str, tyro.conf.arg(help_behavior_hint="(default: RUN/audit)")] = ""
    """The output folder: new, empty, or that of an earlier audit, which is replaced."""
    best: Best = False
    data: Data = ""
    shown: int = 200
    """Images on the page."""
    criterion: tyro.conf.OmitArgPrefixes[ShareCriterion] = field(default_factory=ShareCriterion)
    """The score that ranks images, and the share of them that is listed for exclusion."""
    caching: Caching = field(default_factory=CacheOptions)

    def __call__(self) -> None:
        from data_tools.storage.output_folder import OutputFolder
        from trainer.report.audit_page import write_page
        from trainer.run.checkpoint import chosen_checkpoint
        from trainer.scoring.audit import ranked, write_exclusions, write_table
        from trainer.scoring.calibration import run_of
        from trainer.scoring.loading import load_detector, runs_in

        if self.shown < 1:
            raise UserError(f"--shown {self.shown} is below 1 - give the number of images on the page")
        by, cache = self.criterion, self.caching
        runs = runs_in(self.run)
        run = run_of(chosen_checkpoint(runs[0], self.best))
        if len(runs) > 1 and not self.out:
            raise UserError("--out is missing - give a folder, which is none of these runs' own")
        expected = 0.02 if by.contamination is None and by.false_alarms is None else by.contamination
        criterion = Criterion(by.by, by.lam, by.false_alarms, expected)
        place, audit = self.out or f"{run}/audit", OutputFolder("an audit", OURS, "--out " if self.out else "")
        _check_writable(place)  # before the work
        audit.existing(place)
        estimating = replace(criterion, false_alarms=None, contamination=AUTO)
        loaded = load_detector(self.run, estimating, self.best, cache.cache, cache.cache_limit, self.data)
        detector = replace(loaded, criterion=criterion)
        ranking = ranked(run, detector, cache.open(), self.shown, self.data)
        junk = int(ranking.excluded.sum())
        with audit.replaced(place) as folder:
            write_table(folder / "audit.csv", ranking, by.by)
            write_exclusions(folder / "exclude.txt", ranking, junk, detector.meaning)
            write_page(folder / "index.html", ranking, detector)
        if criterion.contamination != AUTO:  # else the meaning begins with it
            print(detector.junk.sentence())
        print(detector.meaning)
        print(f"{len(ranking.origins):,} training images ranked, {junk:,} of them to exclude: {place}/index.html")
        print(f"next: python -m trainer train … --exclude {place}/exclude.txt --out ANOTHER")
